"""More requests than may wait for an endpoint: turned away at once, told when to come back, and gone without trace."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.core.routing import Route
from app.core.wakes import WakeEstimate
from app.router import queues
from app.router.queues import Queues
from tests.router.tables import NOW, OTHER_KEY, MakeRouter
from tests.router.test_chat import CHAT, body, whole
from tests.router.test_waking import asleep, ep_1
from tests.router.units import Answer, forever, until


async def fill(router: Any, count: int) -> "list[asyncio.Task[Any]]":
    """So many requests under way."""
    http = router.http()
    tasks = [asyncio.create_task(http.post(CHAT, json=body())) for _ in range(count)]
    await until(lambda: len(router.units.responses) == count)
    return tasks


async def test_above_the_bound_429_and_below_it_all_is_well_again(make_router: MakeRouter) -> None:
    may_end = asyncio.Event()

    async def script(answer: Answer) -> None:
        await may_end.wait()
        await whole(answer)

    router = await make_router(script, snapshot=ep_1(concurrency=2, max_waiting=3))
    under_way = await fill(router, 5)
    for stream in (False, True):
        answer = await router.http().post(CHAT, json=body(stream=stream))
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")
        assert int(answer.headers["retry-after"]) > 0
    assert len(router.units.responses) == 5
    may_end.set()
    assert {(await task).status_code for task in under_way} == {200}
    assert (await router.http().post(CHAT, json=body())).status_code == 200


async def test_other_endpoints_are_not_touched(make_router: MakeRouter) -> None:
    router = await make_router(forever, snapshot=ep_1(concurrency=1, max_waiting=1))
    under_way = await fill(router, 2)
    assert (await router.http().post(CHAT, json=body())).status_code == 429
    assert (await router.http().post(CHAT, json=body(model="down"))).status_code == 503
    for task in under_way:
        task.cancel()


async def test_what_sleeps_has_a_bound_too_and_says_when_it_will_be_awake(make_router: MakeRouter) -> None:
    estimate = WakeEstimate(phases={"place": 2, "load": 5})
    router = await make_router(whole, snapshot=asleep(concurrency=0, max_waiting=3, wake=estimate))
    router.units.running.clear()
    under_way = await fill(router, 3)
    answer = await router.http().post(CHAT, json=body())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert len(router.units.wakes) == 1
    router.units.running.set()
    assert {(await task).status_code for task in under_way} == {200}


async def test_a_request_that_is_turned_away_takes_nothing_from_the_limit_a_second(make_router: MakeRouter) -> None:
    may_end = asyncio.Event()

    async def script(answer: Answer) -> None:
        await may_end.wait()
        await whole(answer)

    router = await make_router(script, snapshot=ep_1(concurrency=1, max_waiting=1, qps=3))
    under_way = await fill(router, 2)
    assert {(await router.http().post(CHAT, json=body())).status_code for _ in range(5)} == {429}
    may_end.set()
    await asyncio.gather(*under_way)
    assert (await router.http().post(CHAT, json=body())).status_code == 200


async def test_bodies_take_so_much_memory_and_no_more(make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "BODIES_LIMIT_BYTES", 20_000)
    router = await make_router(forever)
    large = body(messages=[{"role": "user", "content": "x" * 6000}])
    first = asyncio.create_task(router.http().post(CHAT, json=large))
    await until(lambda: router.units.responses)
    assert (await router.http().post(CHAT, json=large)).status_code == 429
    first.cancel()
    await asyncio.sleep(0.02)
    second = asyncio.create_task(router.http().post(CHAT, json=large))
    await until(lambda: len(router.units.responses) == 2)
    second.cancel()


async def test_bodies_that_come_slowly_take_it_too(make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "BODIES_LIMIT_BYTES", 20_000)
    router = await make_router(whole, body_limit_bytes=8000)
    half_sent, may_end = await half_send(router, b" " * 7500)
    large = body(messages=[{"role": "user", "content": "x" * 3000}])
    assert (await router.http().post(CHAT, json=large)).status_code == 429
    assert (await router.http().post("/platform/v1/endpoints", json=large)).status_code == 429
    theirs = body(model="ep-theirs", messages=large["messages"])
    assert (await router.http(OTHER_KEY).post(CHAT, json=theirs)).status_code == 200
    may_end.set()
    assert (await half_sent).status_code == 200
    assert (await router.http().post(CHAT, json=large)).status_code == 200


async def half_send(router: Any, first: bytes) -> "tuple[asyncio.Task[Any], asyncio.Event]":
    """A request whose body comes but for its last part, which comes once the event is set."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield first
        begun.set()
        await may_end.wait()
        yield json.dumps(body()).encode()

    sending = asyncio.create_task(router.http().post(CHAT, content=slowly()))
    await begun.wait()
    return sending, may_end


async def test_bodies_that_only_say_how_large_they_will_be_lock_nobody_out(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "BODIES_LIMIT_BYTES", 20_000)
    router = await make_router(whole, body_limit_bytes=8000)
    half_open = [await half_send(router, b"") for _ in range(5)]
    assert (await router.http().post(CHAT, json=body())).status_code == 200
    for sending, may_end in half_open:
        may_end.set()
        assert (await sending).status_code == 200


async def test_a_body_that_grows_too_large_is_given_up_and_leaves_nothing_behind(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "BODIES_LIMIT_BYTES", 20_000)
    router = await make_router(whole)
    for _ in range(2):
        content = [b" " * 6000, b" " * 6000, json.dumps(body()).encode()]
        refused = await router.http().post(CHAT, content=parts_of(content))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert (await router.http().post(CHAT, content=b" " * 9000 + content[-1])).status_code == 200


async def parts_of(content: list[bytes]) -> AsyncIterator[bytes]:
    for part in content:
        yield part


async def test_a_workspace_takes_half_of_the_memory_and_leaves_the_rest_to_others(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "BODIES_LIMIT_BYTES", 20_000)
    router = await make_router(forever)
    large = [{"role": "user", "content": "x" * 6000}]
    mine = asyncio.create_task(router.http().post(CHAT, json=body(messages=large)))
    await until(lambda: router.units.responses)
    answer = await router.http().post(CHAT, json=body(messages=large))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert "this workspace" in answer.json()["error"]["message"]
    theirs = asyncio.create_task(router.http(OTHER_KEY).post(CHAT, json=body(model="ep-theirs", messages=large)))
    await until(lambda: len(router.units.responses) == 2)
    mine.cancel()
    theirs.cancel()


async def test_workspaces_together_take_all_of_the_memory_and_no_more(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "BODIES_LIMIT_BYTES", 20_000)
    bounded, table = Queues((await make_router(whole)).figures), ep_1()
    mine, theirs = table.routes["ep-1"], table.routes["ep-theirs"]
    another = mine.model_copy(update={"workspace": "another"})
    with bounded.held(mine, 9000), bounded.held(theirs, 9000):
        with pytest.raises(queues.QueueFull, match="at this router"):
            bounded.admit(another, table, 9000)
        bounded.admit(another, table, 2000)
    bounded.admit(another, table, 9000)


async def test_a_workspace_takes_half_of_the_requests_and_leaves_the_rest_to_others(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_REQUESTS", 4)
    may_end = asyncio.Event()

    async def script(answer: Answer) -> None:
        await may_end.wait()
        await whole(answer)

    router = await make_router(script)
    mine = await fill(router, 2)
    answer = await router.http().post(CHAT, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert "This workspace" in answer.json()["error"]["message"]
    theirs = asyncio.create_task(router.http(OTHER_KEY).post(CHAT, json=body(model="ep-theirs")))
    await until(lambda: len(router.units.responses) == 3)
    may_end.set()
    assert {(await task).status_code for task in (*mine, theirs)} == {200}
    assert (await router.http().post(CHAT, json=body())).status_code == 200


async def test_the_pause_follows_the_pace(make_router: MakeRouter) -> None:
    """Ten under way, and one is answered a second."""
    router = await make_router(whole)
    of, table = router.figures.of("ep-1"), ep_1(concurrency=4, max_waiting=5)
    of.running = 10
    turned_away = Queues(router.figures)
    assert pause(turned_away, table) == queues.USUAL_PAUSE_S  # nothing is known of the pace yet
    for _ in range(20):
        router.clock.now += 1
        of.requests["2xx"] += 1
        told = pause(turned_away, table)
    assert told == 10
    of.requests["2xx"] += 1000
    assert pause(turned_away, table) == 1
    router.clock.now += 100_000
    pause(turned_away, table)
    router.clock.now += 100_000
    of.requests["2xx"] += 1
    assert pause(turned_away, table) == queues.LONGEST_PAUSE_S


def pause(turned_away: Queues, table: Any) -> int:
    with pytest.raises(queues.QueueFull) as refused:
        turned_away.admit(table.routes["ep-1"], table, 10)
    return refused.value.retry_after_s


@pytest.mark.parametrize(
    ("concurrency", "max_waiting", "routers", "room"),
    [(64, 256, 1, 320), (64, 256, 3, 107), (0, 5, 1, 5), (0, 1, 4, 1), (64, 256, 0, 320), (64, None, 1, None)],
)
def test_routers_share_what_may_be_under_way(
    concurrency: int, max_waiting: int | None, routers: int, room: int | None
) -> None:
    route = Route(
        endpoint_id="ep-1", workspace="mine", name="demo", state="healthy", created_at=NOW,
        concurrency=concurrency, max_waiting=max_waiting,
    )  # fmt: skip
    assert route.room(routers) == room
