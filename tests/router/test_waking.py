"""Requests to an endpoint that sleeps: they wake it once, wait for it, hear of it, and are never lost."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from app.core.routing import Route, RoutingTable, Target
from app.core.wakes import WakeEstimate
from app.router import call, hold, waking
from tests.router.tables import KEY, MakeRouter, table
from tests.router.test_chat import CHAT, WHOLE, body, whole
from tests.router.test_streaming import DONE, chunk, client, error_in
from tests.router.units import WAIT_S, Answer, forever

ESTIMATE = WakeEstimate(phases={"place": 2, "fetch": 10, "load": 5})
STREAM = body(stream=True)
Serve = Callable[..., str]


def ep_1(number: int = 8, **changes: Any) -> RoutingTable:
    """The tests' table with another ep-1."""
    plain = table(number)
    route = Route(**(dict(plain.routes["ep-1"]) | changes))
    return plain.model_copy(update={"routes": {**plain.routes, "ep-1": route}})


def asleep(number: int = 8, **changes: Any) -> RoutingTable:
    return ep_1(number, **({"state": "sleeping", "running_units": 0} | changes))


def starting(number: int = 9, phase: str = "starting the engine", **changes: Any) -> RoutingTable:
    return asleep(number, state="waking", phase=phase, **changes)


def failed(number: int = 10) -> RoutingTable:
    return asleep(number, state="abnormal", targets=(), reason="out of memory")


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if check():
                return
            await asyncio.sleep(0.005)


async def streamed(answer: Answer) -> None:
    await answer.send("text/event-stream", chunk("one"), chunk("two"), DONE)


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times as often."""
    monkeypatch.setattr(hold, "HEARTBEAT_S", hold.HEARTBEAT_S / 100)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that has to go elsewhere goes at once."""
    monkeypatch.setattr(call, "RETRY_PAUSE_S", 0.0)


async def sleeping(make_router: MakeRouter, *scripts: Any, snapshot: RoutingTable | None = None, **args: Any) -> Any:
    """A router whose ep-1 sleeps."""
    router = await make_router(*scripts, snapshot=snapshot or asleep(), **args)
    router.units.running.clear()
    return router


async def begun(router: Any, **request: Any) -> "asyncio.Task[httpx.Response]":
    """A request that is in the handle."""
    before = len(router.units.responses)
    task = asyncio.create_task(router.http().post(CHAT, **({"json": body()} | request)))
    await until(lambda: len(router.units.responses) > before or task.done())
    return task


async def test_many_requests_wake_it_once_and_are_all_answered_in_order(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole)
    http = router.http()
    asking = [asyncio.create_task(http.post(CHAT, json=body(user=str(number)))) for number in range(50)]
    await until(lambda: len(router.units.responses) == 50)
    assert len(router.units.wakes) == 1
    assert [json.loads(raw)["user"] for raw in router.units.bodies] == [str(number) for number in range(50)]
    router.units.running.set()
    answers = await asyncio.gather(*asking)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, WHOLE)}
    assert len(router.units.wakes) == 1
    assert not router.units.wakes[0].cancelled.is_set()


async def test_one_that_is_awake_is_not_woken(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    for headers in ({}, {"x-modelunit-wake": "fail"}, {"x-modelunit-wake": "wait", "x-modelunit-wake-timeout-s": "5"}):
        assert (await router.http().post(CHAT, json=body(), headers=headers)).status_code == 200
    assert router.units.wakes == []


async def test_lists_and_probes_wake_nobody(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole)
    for path in ("/v1/models", "/metrics", "/healthz", "/readyz", "/openapi.json"):
        assert (await router.http().get(path)).status_code == 200
    assert router.units.applications == []


@pytest.mark.parametrize(("estimate", "retry_after", "words"), [(ESTIMATE, "17", "about 17 s"), (None, "30", "soon")])
async def test_who_does_not_want_to_wait_wakes_it_all_the_same(
    make_router: MakeRouter, estimate: WakeEstimate | None, retry_after: str, words: str
) -> None:
    router = await sleeping(make_router, whole, snapshot=asleep(wake=estimate))
    for stream in (False, True):
        answer = await router.http().post(CHAT, json=body(stream=stream), headers={"x-modelunit-wake": "fail"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asleep")
        assert answer.headers["retry-after"] == retry_after
        assert words in answer.json()["error"]["message"]
    await until(lambda: router.units.wakes)
    assert len(router.units.wakes) == 1
    assert router.units.responses == []
    router.units.running.set()
    await asyncio.sleep(0.02)  # the routing table is still the old one
    answer = await router.http().post(CHAT, json=body(), headers={"x-modelunit-wake": "fail"})
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["x-modelunit-wake", "x-modelunit-wake-timeout-s"])
async def test_nonsense_is_refused_asleep_or_awake(make_router: MakeRouter, name: str) -> None:
    for snapshot in (table(), asleep()):
        router = await make_router(whole, snapshot=snapshot)
        answer = await router.http().post(CHAT, json=body(), headers={name: "7200"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        assert router.units.applications == []


@pytest.mark.parametrize("stream", [True, False])
async def test_who_has_waited_as_long_as_he_would_is_told_and_it_goes_on_waking(
    make_router: MakeRouter, stream: bool
) -> None:
    router = await sleeping(make_router, whole, first_token_timeout_s=0.01, answer_timeout_s=0.01)
    headers = {"x-modelunit-wake-timeout-s": "1"}
    answer = await router.http().post(CHAT, json=body(stream=stream), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert "Waited 1 s for endpoint ep-1 to wake" in answer.json()["error"]["message"]
    await until(router.units.responses[0].cancelled.is_set)
    assert not router.units.wakes[0].cancelled.is_set()


async def test_who_leaves_takes_his_request_along_and_nothing_else(make_router: MakeRouter, serve: Serve) -> None:
    router = await sleeping(make_router, whole)
    async with client(serve(router.app)) as http:
        asking = asyncio.create_task(http.post(CHAT, json=body()))
        await until(lambda: router.units.wakes)
        asking.cancel()
        await until(router.units.responses[0].cancelled.is_set)
    await asyncio.sleep(0.02)
    assert not router.units.wakes[0].cancelled.is_set()


@pytest.mark.usefixtures("beats")
async def test_a_stream_that_waits_hears_how_long(make_router: MakeRouter, serve: Serve) -> None:
    router = await sleeping(make_router, streamed, snapshot=asleep(wake=ESTIMATE))
    async with client(serve(router.app)) as http, http.stream("POST", CHAT, json=STREAM) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["x-modelunit-revision"] == "r1"
        assert answer.headers["x-request-id"]
        parts = answer.aiter_bytes()
        assert await anext(parts) == b": waking, finding a place for a unit, about 17 s left\n\n"
        router.publish(starting(wake=ESTIMATE))
        await heard(parts, b": waking, starting the engine, about 5 s left\n\n")
        router.publish(starting(10, "waiting for 1 CPU", wake=ESTIMATE))
        await heard(parts, b": waking, waiting for 1 CPU\n\n")
        router.units.running.set()
        rest = b"".join([part async for part in parts])
    assert rest.endswith(chunk("one") + chunk("two") + DONE)
    assert len(router.units.responses) == 1


async def heard(parts: Any, comment: bytes) -> None:
    """What was sent before may come yet."""
    async with asyncio.timeout(WAIT_S):
        while comment not in await anext(parts):
            pass


@pytest.mark.usefixtures("beats")
async def test_the_openai_client_does_not_notice(make_router: MakeRouter, serve: Serve) -> None:
    router = await sleeping(make_router, streamed)
    url = serve(router.app)
    words: list[str | None] = []
    async with client(url) as http:
        ai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=http, max_retries=0)
        stream = await ai.chat.completions.create(**STREAM)  # returns with the first heartbeat
        router.units.running.set()
        async for event in stream:
            words.append(event.choices[0].delta.content)
    assert words == ["one", "two"]


async def test_a_short_wait_has_no_heartbeat(make_router: MakeRouter, serve: Serve) -> None:
    router = await sleeping(make_router, streamed)
    asking = await begun(router, json=STREAM)
    router.units.running.set()
    assert (await asking).content == chunk("one") + chunk("two") + DONE


@pytest.mark.usefixtures("beats")
async def test_a_stream_that_has_begun_ends_with_an_error_event(make_router: MakeRouter, serve: Serve) -> None:
    router = await sleeping(make_router, streamed)
    async with client(serve(router.app)) as http, http.stream("POST", CHAT, json=STREAM) as answer:
        parts = answer.aiter_bytes()
        await anext(parts)
        router.publish(failed())
        tail = b"".join([part async for part in parts])
    error = error_in(tail)
    assert (answer.status_code, error["code"]) == (200, "unavailable")
    assert error["message"] == "Endpoint ep-1 is abnormal: out of memory."


async def test_a_wake_that_fails_is_told_to_all_who_wait(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole)
    asking = [await begun(router, json=body(stream=stream)) for stream in (False, True, False)]
    router.publish(starting())
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in asking)
    router.publish(failed())
    for answer in await asyncio.gather(*asking):
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "unavailable_error")
        assert answer.json()["error"]["message"] == "Endpoint ep-1 is abnormal: out of memory."
        assert answer.headers["retry-after"]
    await until(router.units.wakes[0].cancelled.is_set)  # else Serve would go on trying
    assert (await router.http().post(CHAT, json=body())).status_code == 503


@pytest.mark.parametrize("change", ["deleted", "stopped"])
async def test_what_is_taken_away_while_it_wakes_is_said(make_router: MakeRouter, change: str) -> None:
    router = await sleeping(make_router, whole)
    asking = await begun(router)
    gone = asleep(9, state="stopped", targets=(), reason="stopped by a caller")
    if change == "deleted":
        gone = gone.model_copy(update={"routes": {}})
    router.publish(gone)
    answer = await asking
    assert answer.status_code == 503
    assert change in answer.json()["error"]["message"]


@pytest.mark.usefixtures("beats")
async def test_from_when_a_unit_runs_it_is_given_as_long_as_ever(make_router: MakeRouter, serve: Serve) -> None:
    router = await sleeping(make_router, forever, first_token_timeout_s=0.3)
    async with client(serve(router.app)) as http, http.stream("POST", CHAT, json=STREAM) as answer:
        parts = answer.aiter_bytes()
        await anext(parts)
        router.publish(ep_1(11))
        await heard(parts, b": waiting for the first token\n\n")
        tail = b"".join([part async for part in parts])
    assert error_in(tail)["message"] == "Waited 0.3 s for the first token."


@pytest.mark.usefixtures("beats")
async def test_one_that_fell_asleep_unnoticed_is_found_out(make_router: MakeRouter, serve: Serve) -> None:
    """The routing table says for a moment that a unit runs, when none does any more."""
    router = await sleeping(make_router, streamed, snapshot=table(), first_token_timeout_s=0.2)
    async with asyncio.timeout(WAIT_S), client(serve(router.app)) as http:
        asking = asyncio.create_task(http.post(CHAT, json=STREAM))
        await until(lambda: router.units.responses)
        assert router.units.wakes == []
        router.publish(asleep())
        await until(lambda: router.units.wakes)
        await asyncio.sleep(0.3)  # longer than a first token may take
        router.units.running.set()
        answer = await asking
    assert answer.content.startswith(b": waking, ")
    assert answer.content.endswith(chunk("one") + chunk("two") + DONE)


async def test_who_does_not_want_to_wait_is_told_also_then(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole, snapshot=table())
    asking = await begun(router, headers={"x-modelunit-wake": "fail"})
    router.publish(asleep())
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asleep")
    assert len(router.units.wakes) == 1


@pytest.mark.usefixtures("impatient")
async def test_one_that_changes_while_it_sleeps_takes_its_requests_along(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole)
    asking = await begun(router)
    router.publish(asleep(9, state="scheduling", targets=()))
    await until(router.units.responses[0].cancelled.is_set)
    await until(router.units.wakes[0].cancelled.is_set)
    assert len(router.units.responses) == 1
    router.units.running.set()
    router.publish(ep_1(10, targets=(Target(revision="r2", application="ep-1.r-r2"),)))
    answer = await asking
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["x-modelunit-revision"] == "r2"
    assert router.units.applications[-1] == "ep-1.r-r2"


@pytest.mark.parametrize(
    "after",
    [
        asleep(9, state="stopped", targets=(), running_units=1),
        asleep(9, state="abnormal", targets=(), reason="out of memory"),
        asleep(9, state="scheduling", targets=(Target(revision="r2", application="ep-1.r-r2"),)),
        table(9).model_copy(update={"routes": {}}),
    ],
)
async def test_what_a_unit_works_on_is_left_to_it(make_router: MakeRouter, after: RoutingTable) -> None:
    """Whatever becomes of the endpoint: a unit that is told to go finishes what it has begun."""
    works, may_end = asyncio.Event(), asyncio.Event()

    async def slow(answer: Answer) -> None:
        works.set()
        await may_end.wait()
        await whole(answer)

    router = await make_router(slow)
    asking = await begun(router)
    await works.wait()
    router.publish(after)
    await asyncio.sleep(0.02)
    may_end.set()
    answer = await asking
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert len(router.units.responses) == 1


async def test_a_wake_that_breaks_off_is_begun_again(make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "RETRY_S", 0.0)
    router = await sleeping(make_router, whole)
    asking = await begun(router)
    await until(lambda: router.units.wakes)
    with contextlib.suppress(asyncio.CancelledError):
        router.units.wakes[0].cancel()
    await until(lambda: len(router.units.wakes) == 2)
    router.units.running.set()
    assert (await asking).status_code == 200


async def test_nothing_is_kept_of_those_who_have_gone(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole)
    asking = [await begun(router) for _ in range(3)]
    router.units.running.set()
    await asyncio.gather(*asking)
    router.publish(ep_1(11))
    await asyncio.sleep(0.02)
    assert router.units.wakes[1:] == []
    await router.http().post(CHAT, json=body())
    assert router.directory._listeners[0].__self__._waiting == {}
