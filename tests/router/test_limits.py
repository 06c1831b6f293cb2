"""How much endpoints and keys may take, through a router and as arithmetic of its share."""

import asyncio
from typing import Any

import pytest

from app.core.errors import BadRequest, DeadlineExceeded, PlatformError, QpsExceeded, TooLarge, TooManyRequests
from app.core.key_limits import KeyLimits
from app.core.keys import hash_key
from app.core.routing import RoutingTable
from app.core.wakes import TIMEOUT_HEADER
from app.router import hold
from app.router.limits import Claim, Limits
from tests.router.tables import KEY, OTHER_KEY, Clock, MakeRouter, table
from tests.router.test_chat import CHAT, body, failing, whole
from tests.router.units import Answer, until


def limited(qps: float | None = None, routers: int = 1, number: int = 7, **of_key: int) -> RoutingTable:
    """The tests' table with a limit on ep-1, and others on KEY."""
    plain = table(number)
    ep_1 = plain.routes["ep-1"].model_copy(update={"qps": qps})
    mine = plain.grants[hash_key(KEY)].model_copy(update={"key_id": "key-1", "limits": KeyLimits(**of_key)})
    update = {
        "routes": {**plain.routes, "ep-1": ep_1},
        "grants": {**plain.grants, hash_key(KEY): mine},
        "routers": routers,
    }
    return plain.model_copy(update=update)


async def test_above_its_limit_an_endpoint_answers_429_and_says_when_to_come_back(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=limited(0.25))
    http = router.http()
    assert (await http.post(CHAT, json=body())).status_code == 200
    answer = await http.post(CHAT, json=body(model="demo"))
    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "4")
    assert (error["type"], error["code"], error["param"]) == ("ModelArts.4206", "rate_limited", None)
    assert "ep-1 takes 0.25 requests a second" in error["message"]
    assert len(router.units.responses) == 1
    router.clock.now += 4
    assert (await http.post(CHAT, json=body())).status_code == 200


async def test_only_requests_that_could_be_answered_count(make_router: MakeRouter) -> None:
    http = (await make_router(whole, snapshot=limited(1))).http()
    assert (await http.post(CHAT, json=body(temperature=9))).status_code == 400
    assert (await http.post(CHAT, json=body())).status_code == 200
    assert (await http.post(CHAT, json=body())).status_code == 429


async def test_without_a_limit_there_is_none(make_router: MakeRouter) -> None:
    http = (await make_router(whole)).http()
    assert {(await http.post(CHAT, json=body())).status_code for _ in range(20)} == {200}


async def test_the_answer_tells_how_the_limits_stand(make_router: MakeRouter) -> None:
    tokens = 20_000
    router = await make_router(whole, snapshot=limited(5, requests_per_minute=60, tokens_per_minute=tokens))
    http = router.http()
    asked = body(max_tokens=100, n=2)
    answer = await http.post(CHAT, json=asked)
    reckoned = -(-len(answer.request.content) // 4) + 200
    told = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}
    assert told == {
        "x-ratelimit-limit-requests": "300",  # five a second, and they leave less than 60 a minute do
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "200ms",
        "x-ratelimit-limit-tokens": "20000",
        "x-ratelimit-remaining-tokens": str(10_000 - reckoned),
        "x-ratelimit-reset-tokens": told["x-ratelimit-reset-tokens"],
    }
    assert told["x-ratelimit-reset-tokens"].endswith("ms")
    for left in (3, 2, 1, 0):
        answer = await http.post(CHAT, json=asked)
        assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, str(left))
    refused = await http.post(CHAT, json=asked)
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (429, "0")
    assert refused.headers["x-ratelimit-reset-requests"] == "1s"


async def test_a_stream_and_what_the_engine_refuses_tell_it_too(make_router: MakeRouter) -> None:
    async def streaming(answer: Answer) -> None:
        await answer.send("text/event-stream", b"data: x\n\n")

    snapshot = limited(requests_per_minute=6)
    router = await make_router(streaming, failing(BadRequest("too long")), snapshot=snapshot)
    answers = [await router.http().post(CHAT, json=body(stream=True)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["5", "4"]
    assert "x-ratelimit-limit-tokens" not in answers[0].headers


async def test_where_there_is_no_limit_nothing_is_told(make_router: MakeRouter) -> None:
    answer = await (await make_router(whole)).http().post(CHAT, json=body())
    assert [name for name in answer.headers if "ratelimit" in name] == []


async def test_a_key_that_asks_too_often_gets_429(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=limited(requests_per_minute=2))
    http = router.http()
    assert [(await http.post(CHAT, json=body())).status_code for _ in range(2)] == [200, 200]
    answer = await http.post(CHAT, json=body())
    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limited", None)
    assert "key-1" in error["message"]
    assert "2 requests a minute: its limits.requests_per_minute" in error["message"]
    assert (await router.http(OTHER_KEY).post(CHAT, json=body(model="ep-theirs"))).status_code == 200
    router.clock.now += 30
    assert (await http.post(CHAT, json=body())).status_code == 200


async def test_a_key_that_asks_for_too_much_gets_429(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=limited(tokens_per_minute=600))
    http = router.http()
    assert (await http.post(CHAT, json=body(max_tokens=580))).status_code == 200
    answer = await http.post(CHAT, json=body(max_completion_tokens=300))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limited")
    assert "600 tokens a minute: its limits.tokens_per_minute" in error["message"]
    assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
    router.clock.now += int(answer.headers["retry-after"])
    assert (await http.post(CHAT, json=body(max_completion_tokens=300))).status_code == 200


async def test_what_the_engine_refused_took_no_tokens(make_router: MakeRouter) -> None:
    router = await make_router(failing(BadRequest("too long")), whole, snapshot=limited(tokens_per_minute=600))
    assert (await router.http().post(CHAT, json=body(max_tokens=500))).status_code == 400
    assert (await router.http().post(CHAT, json=body(max_tokens=500))).status_code == 200


async def test_a_key_has_so_many_requests_under_way(make_router: MakeRouter) -> None:
    may_end = asyncio.Event()

    async def script(answer: Answer) -> None:
        await may_end.wait()
        await whole(answer)

    router = await make_router(script, snapshot=limited(concurrency=2, requests_per_minute=3))
    http = router.http()
    under_way = [asyncio.create_task(http.post(CHAT, json=body())) for _ in range(2)]
    await until(lambda: len(router.units.responses) == 2)
    answer = await http.post(CHAT, json=body())
    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["retry-after"], error["type"]) == (429, "1", "rate_limit_error")
    assert "2 requests under way at once: its limits.concurrency" in error["message"]
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"  # it took nothing
    under_way[0].cancel()
    await asyncio.gather(under_way[0], return_exceptions=True)
    may_end.set()
    assert (await http.post(CHAT, json=body())).status_code == 200
    assert (await under_way[1]).status_code == 200


async def test_new_limits_hold_from_the_next_request_on(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=limited())
    assert {(await router.http().post(CHAT, json=body())).status_code for _ in range(5)} == {200}
    router.publish(limited(number=8, requests_per_minute=1))
    assert [(await router.http().post(CHAT, json=body())).status_code for _ in range(2)] == [200, 429]
    router.publish(limited(number=9))
    assert (await router.http().post(CHAT, json=body())).status_code == 200


def claimed(limits: Limits, at: RoutingTable, tokens: int = 0, endpoint: str = "ep-1", key: str = KEY) -> Claim:
    claim = limits.of(at.grants[hash_key(key)], at.routes[endpoint], at, tokens)
    claim.take()
    return claim


def admitted(limits: Limits, at: RoutingTable, tries: int, **to: Any) -> int:
    count = 0
    for _ in range(tries):
        try:
            claimed(limits, at, **to)
            count += 1
        except TooManyRequests:
            pass
    return count


@pytest.mark.parametrize(("routers", "share"), [(1, 12), (2, 6), (4, 3), (0, 12)])
def test_routers_share_a_limit(routers: int, share: int) -> None:
    assert admitted(Limits(Clock(0)), limited(12, routers), 50) == share
    assert admitted(Limits(Clock(0)), limited(routers=routers, requests_per_minute=12), 50) == share
    assert admitted(Limits(Clock(0)), limited(routers=routers, tokens_per_minute=1200), 50, tokens=100) == share


def test_a_limit_follows_the_table() -> None:
    clock = Clock(0)
    limits = Limits(clock)
    assert admitted(limits, limited(2), 9) == 2
    clock.now = 60  # a second unit runs
    assert admitted(limits, limited(4, number=8), 9) == 4
    clock.now = 120
    assert admitted(limits, limited(None, number=9), 9) == 9


def test_endpoints_have_their_own_limits_and_those_that_are_gone_are_forgotten() -> None:
    limits = Limits(Clock(0))
    full = limited(1)
    theirs = full.routes["ep-theirs"].model_copy(update={"qps": 1.0})
    full = full.model_copy(update={"routes": {**full.routes, "ep-theirs": theirs}})
    assert admitted(limits, full, 3) == 1
    assert admitted(limits, full, 3, endpoint="ep-theirs", key=OTHER_KEY) == 1
    without = full.model_copy(update={"number": 8, "routes": {"ep-theirs": theirs}})
    assert admitted(limits, without, 3, endpoint="ep-theirs", key=OTHER_KEY) == 0
    assert admitted(limits, limited(1, number=9), 3) == 1  # made anew, so it begins full


def test_keys_that_are_gone_are_forgotten() -> None:
    limits, all_of_it = Limits(Clock(0)), {"requests_per_minute": 1, "tokens_per_minute": 1, "concurrency": 1}
    with claimed(limits, limited(**all_of_it)):
        claimed(limits, limited(number=8), endpoint="ep-1")
    assert (limits._buckets, limits._under_way) == ({}, {})


def test_who_is_refused_by_one_limit_takes_nothing_of_the_others() -> None:
    clock = Clock(0)
    limits = Limits(clock)
    snapshot = limited(2, requests_per_minute=40, tokens_per_minute=600)
    assert admitted(limits, snapshot, 20, tokens=601) == 1  # then there are no tokens
    for _ in range(5):
        with pytest.raises(TooManyRequests, match="600 tokens a minute"):
            claimed(limits, snapshot, tokens=1)
    claim = limits.of(snapshot.grants[hash_key(KEY)], snapshot.routes["ep-1"], snapshot, 1)
    assert dict(claim.headers())["x-ratelimit-remaining-requests"] == "1"
    clock.now = 0.2  # there are tokens again
    assert admitted(limits, snapshot, 5, tokens=1) == 1
    with pytest.raises(QpsExceeded):  # of the two that refuse, it lasts longer
        claimed(limits, snapshot, tokens=1)


def test_what_was_reckoned_is_settled_by_what_was_counted() -> None:
    limits, snapshot = Limits(Clock(0)), limited(tokens_per_minute=1000)
    with claimed(limits, snapshot, tokens=900) as claim:
        assert admitted(limits, snapshot, 1, tokens=200) == 0
        claim.settle(300)
        claim.settle(0)  # what came first counts
    assert admitted(limits, snapshot, 9, tokens=100) == 7
    claimed(limits, snapshot, tokens=0).settle(500)  # more than was reckoned
    with pytest.raises(TooManyRequests) as refused:
        claimed(limits, snapshot, tokens=100)
    assert refused.value.retry_after_s == 36


@pytest.mark.parametrize(("counted", "left"), [(None, 10), (400, 6)])
def test_an_answer_that_failed_before_it_began_takes_no_tokens_unless_they_were_counted(
    counted: int | None, left: int
) -> None:
    limits, snapshot = Limits(Clock(0)), limited(tokens_per_minute=1000)

    def fail() -> None:
        with claimed(limits, snapshot, tokens=900) as claim:
            if counted is not None:
                claim.settle(counted)
            raise BadRequest("no")

    with pytest.raises(BadRequest):
        fail()
    assert admitted(limits, snapshot, 20, tokens=100) == left


@pytest.mark.parametrize("stream", [True, False])
async def test_who_waits_for_a_unit_in_vain_gets_the_tokens_back(make_router: MakeRouter, stream: bool) -> None:
    snapshot = limited(tokens_per_minute=600)
    router = await make_router(whole, snapshot=snapshot, first_token_timeout_s=0.05, answer_timeout_s=0.05)
    router.units.running.clear()
    assert (await router.http().post(CHAT, json=body(max_tokens=500, stream=stream))).status_code == 504
    await router.listener.settled()
    router.units.running.set()
    answer = await router.http().post(CHAT, json=body(max_tokens=500))
    assert answer.status_code == 200


async def test_who_fails_after_a_heartbeat_gets_the_tokens_back(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "HEARTBEAT_S", 0.01)
    awake = limited(tokens_per_minute=600)
    sleeping = awake.routes["ep-1"].model_copy(update={"running_units": 0})
    router = await make_router(whole, snapshot=awake.model_copy(update={"routes": {"ep-1": sleeping}}))
    router.units.running.clear()
    asked, waits = body(max_tokens=500, stream=True), {TIMEOUT_HEADER: "1"}
    answer = await router.http().post(CHAT, json=asked, headers=waits)
    assert (answer.status_code, "deadline_exceeded" in answer.text) == (200, True)
    await router.listener.settled()
    router.units.running.set()
    router.publish(limited(number=8, tokens_per_minute=600))
    assert (await router.http().post(CHAT, json=body(max_tokens=500))).status_code == 200


@pytest.mark.parametrize("given_up", [DeadlineExceeded("late"), TooLarge("slow")])
def test_what_the_router_gave_up_is_settled_by_its_engine(given_up: PlatformError) -> None:
    limits, snapshot = Limits(Clock(0)), limited(tokens_per_minute=1000)
    claim = claimed(limits, snapshot, tokens=900)

    def fail() -> None:
        with claim:
            raise given_up

    with pytest.raises(type(given_up)):
        fail()
    claim.settle(700)
    assert admitted(limits, snapshot, 20, tokens=100) == 3
