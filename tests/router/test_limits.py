"""How often an endpoint may be called, through a router and as arithmetic of its share."""

from typing import Any

import pytest

from app.core.errors import QpsExceeded
from app.core.routing import RoutingTable
from app.router.limits import Limits
from tests.router.tables import Clock, MakeRouter, table
from tests.router.test_chat import CHAT, body, whole


def limited(qps: float | None, routers: int = 1, number: int = 7) -> RoutingTable:
    """The tests' table with a limit on ep-1."""
    plain = table(number)
    routes = dict(plain.routes)
    routes["ep-1"] = routes["ep-1"].model_copy(update={"qps": qps})
    return plain.model_copy(update={"routes": routes, "routers": routers})


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


def admitted(limits: Limits, at: RoutingTable, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            limits.admit(at.routes["ep-1"], at)
            count += 1
        except QpsExceeded:
            pass
    return count


@pytest.mark.parametrize(("routers", "share"), [(1, 12), (2, 6), (4, 3), (0, 12)])
def test_routers_share_a_limit(routers: int, share: int) -> None:
    assert admitted(Limits(Clock(0)), limited(12, routers), 50) == share


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
    assert admitted(limits, full, 3) == 1
    limits.admit(theirs, full)
    with pytest.raises(QpsExceeded):
        limits.admit(theirs, full)
    without: Any = full.model_copy(update={"number": 8, "routes": {"ep-theirs": theirs}})
    with pytest.raises(QpsExceeded):
        limits.admit(theirs, without)
    assert admitted(limits, limited(1, number=9), 3) == 1  # made anew, so it begins full
