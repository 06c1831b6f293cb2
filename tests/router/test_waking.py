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
from app.router.waking import WOKEN_TRUSTED_S, Waking
from tests.router.tables import KEY, Clock, MakeRouter, table
from tests.router.test_chat import CHAT, WHOLE, body, whole
from tests.router.test_streaming import DONE, chunk, client, error_in
from tests.router.units import WAIT_S, Answer, forever, until

ESTIMATE = WakeEstimate(phases={"place": 2, "fetch": 10, "load": 5})
STREAM = body(stream=True)
NOT_WAITING = {"x-modelunit-wake": "fail"}
NEXT = (Target(revision="r2", application="ep-1.r-r2"),)
"""Another revision has taken the place of the first."""
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


async def streamed(answer: Answer) -> None:
    await answer.send("text/event-stream", chunk("one"), chunk("two"), DONE)


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times as often."""
    monkeypatch.setattr(hold, "HEARTBEAT_S", hold.HEARTBEAT_S / 100)


@pytest.fixture
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks around unless he is told."""
    monkeypatch.setattr(hold, "HEARTBEAT_S", 1000.0)


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


async def test_the_handle_of_one_that_sleeps_is_given_up_unless_somebody_waits(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=table())
    assert (await router.http().post(CHAT, json=body())).status_code == 200
    router.publish(asleep(8))
    await until(lambda: router.units.shut_down == 1)
    router.units.running.clear()
    asking = await begun(router)
    router.publish(asleep(9, phase="starting"))
    await asyncio.sleep(0.02)
    assert router.units.shut_down == 1
    router.units.running.set()
    assert (await asking).status_code == 200
    assert router.units.applications == ["ep-1.r-r1", "ep-1.r-r1"]


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
    for headers in ({}, NOT_WAITING, {"x-modelunit-wake": "wait", "x-modelunit-wake-timeout-s": "5"}):
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
        answer = await router.http().post(CHAT, json=body(stream=stream), headers=NOT_WAITING)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asleep")
        assert answer.headers["retry-after"] == retry_after
        assert words in answer.json()["error"]["message"]
    await until(lambda: router.units.wakes)
    assert len(router.units.wakes) == 1
    assert router.units.responses == []
    router.units.running.set()
    await asyncio.sleep(0.02)  # the routing table is still the old one
    answer = await router.http().post(CHAT, json=body(), headers=NOT_WAITING)
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
    asking = await begun(router, headers=NOT_WAITING)
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
    router.publish(ep_1(10, targets=NEXT))
    answer = await asking
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["x-modelunit-revision"] == "r2"
    assert router.units.applications[-1] == "ep-1.r-r2"


@pytest.mark.usefixtures("impatient", "no_beats")
@pytest.mark.parametrize("before", [asleep(), table()])
async def test_what_waits_for_a_revision_goes_along_to_the_next_at_once(
    make_router: MakeRouter, before: RoutingTable
) -> None:
    """Whether its units sleep or have no room for more."""
    router = await sleeping(make_router, whole, snapshot=before)
    asking = await begun(router)
    router.publish(ep_1(9, targets=NEXT))
    await until(lambda: len(router.units.responses) == 2)
    assert router.units.responses[0].cancelled.is_set()
    router.units.running.set()
    answer = await asking
    assert (answer.status_code, answer.headers["x-modelunit-revision"]) == (200, "r2")


async def test_what_waits_for_a_revision_that_has_no_successor_is_told_why(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole, snapshot=table())
    asking = await begun(router)
    router.publish(failed())
    async with asyncio.timeout(WAIT_S):
        answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.json()["error"]["message"] == "Endpoint ep-1 is abnormal: out of memory."


async def test_the_next_revision_is_woken_instead(make_router: MakeRouter) -> None:
    router = await sleeping(make_router, whole)
    await router.http().post(CHAT, json=body(), headers=NOT_WAITING)
    await until(lambda: router.units.wakes)
    router.publish(asleep(9, targets=NEXT))
    await until(router.units.wakes[0].cancelled.is_set)
    answer = await router.http().post(CHAT, json=body(), headers=NOT_WAITING)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asleep")
    await until(lambda: len(router.units.wakes) == 2)
    assert router.units.applications == ["ep-1.r-r1", "ep-1.r-r2"]


async def test_a_call_to_wake_waits_for_so_long_and_another_takes_its_place(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "RETRY_S", 0.0)
    monkeypatch.setattr(waking, "LONGEST_WAIT_S", 0.05)
    router = await sleeping(make_router, whole)
    asking = await begun(router)
    await until(lambda: len(router.units.wakes) > 1)
    assert router.units.wakes[0].cancelled.is_set()
    router.units.running.set()
    assert (await asking).status_code == 200


@pytest.mark.parametrize(
    "after",
    [
        asleep(9),
        asleep(9, state="stopped", targets=(), running_units=1),
        asleep(9, state="abnormal", targets=(), reason="out of memory"),
        asleep(9, state="scheduling", targets=NEXT),
        table(9).model_copy(update={"routes": {}}),
    ],
)
@pytest.mark.parametrize("headers", [{}, NOT_WAITING])
async def test_what_a_unit_works_on_is_left_to_it(
    make_router: MakeRouter, after: RoutingTable, headers: dict[str, str]
) -> None:
    """Whatever becomes of the endpoint: a unit that is told to go finishes what it has begun."""
    works, may_end = asyncio.Event(), asyncio.Event()

    async def slow(answer: Answer) -> None:
        works.set()
        await may_end.wait()
        await whole(answer)

    router = await make_router(slow)
    asking = await begun(router, headers=headers)
    await works.wait()
    router.publish(after)
    await asyncio.sleep(0.02)
    may_end.set()
    answer = await asking
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert len(router.units.responses) == 1
    assert router.units.wakes == []  # nothing waits for a unit


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


async def woken(make_router: MakeRouter) -> Any:
    """A router that has just woken ep-1, of which the routing table knows nothing yet."""
    router = await make_router(whole, snapshot=asleep())
    router.waking = Waking(router.directory, Clock(0.0))
    router.waking.keep_waking(asleep().routes["ep-1"])
    await until(lambda: awake(router))
    return router


def awake(router: Any) -> bool:
    """Whether ep-1 is, as far as is known."""
    known: bool = router.waking.is_awake(router.directory.table.routes["ep-1"])
    return known


async def test_a_unit_that_has_answered_counts_until_a_table_knows_more(make_router: MakeRouter) -> None:
    router = await woken(make_router)
    router.publish(starting())  # made before it was awake
    assert awake(router)
    router.waking.clock.now = 3600.0  # the control plane is away
    assert awake(router)
    router.publish(asleep(10))
    assert not awake(router)


async def test_a_unit_that_the_table_has_seen_counts_no_longer_than_the_table_says(make_router: MakeRouter) -> None:
    router = await woken(make_router)
    router.publish(ep_1(9))
    router.waking.clock.now = WOKEN_TRUSTED_S / 2
    router.publish(asleep(10))
    assert not awake(router)


@pytest.mark.parametrize("targets", [(), NEXT])
async def test_a_unit_that_has_answered_counts_for_its_revision_only(
    make_router: MakeRouter, targets: tuple[Target, ...]
) -> None:
    router = await woken(make_router)
    router.publish(asleep(9, targets=targets))
    assert not awake(router)


async def test_a_unit_that_the_table_knew_first_is_not_noted(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=ep_1())
    router.waking = Waking(router.directory, Clock(0.0))
    router.waking.keep_waking(asleep().routes["ep-1"])
    await until(lambda: not router.waking._calls)
    router.publish(asleep(9))
    assert not awake(router)
