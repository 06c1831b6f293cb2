"""GET /metrics: what it says, and to whom."""

from typing import get_args

import pytest

from app.core.keys import hash_key, issue_key
from app.core.records import Role
from app.core.routing import Grant
from app.router.figures import Figures
from tests.router.tables import KEY, Clock, MakeRouter, table
from tests.router.test_chat import CHAT, body, whole
from tests.router.units import forever
from tests.test_metrics import values

FAR = "203.0.113.9"


def other_router(requests: int) -> str:
    figures = Figures("router-2", Clock(0), Clock(0))
    for _ in range(requests):
        with figures.request() as counted:
            counted.concerns("ep-1")
            counted.answered(200, streamed=True)
    return figures.exposition(6)


async def test_it_has_the_routers_own_figures_and_what_the_control_plane_knows(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    await router.http().post(CHAT, json=body())
    unit = "# HELP unit_up Of a unit.\n# TYPE unit_up gauge\nunit_up 1.0\n"
    stale = router.figures.exposition(5)
    router.others.text = other_router(4) + unit + stale
    await router.http().post(CHAT, json=body())
    answer = await router.http(None).get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = values(answer.text)
    done = ("endpoint", "ep-1"), ("status", "2xx")
    assert samples["modelunit_requests_total", (done[0], ("router", "router-1"), done[1])] == 2  # and not what was told
    assert samples["modelunit_requests_total", (done[0], ("router", "router-2"), done[1])] == 4
    assert samples["modelunit_routing_table_number", (("router", "router-2"),)] == 6
    assert samples["unit_up", ()] == 1
    assert answer.text.count("# TYPE modelunit_requests_total") == 1


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError()])
async def test_without_the_control_plane_it_has_its_own(make_router: MakeRouter, error: Exception) -> None:
    router = await make_router(forever)
    router.others.text = error
    answer = await router.http(None).get("/metrics")
    assert answer.status_code == 200
    assert values(answer.text) == values(router.figures.exposition(7))


async def test_from_elsewhere_it_needs_a_key_of_the_platforms_operators(make_router: MakeRouter) -> None:
    keys = {(workspace, role): issue_key() for workspace in ("default", "mine") for role in get_args(Role)}
    grants = {hash_key(key): Grant(workspace=workspace, role=role) for (workspace, role), key in keys.items()}
    router = await make_router(forever, snapshot=table().model_copy(update={"grants": grants}))
    assert (await router.http(None, peer=FAR).get("/metrics")).status_code == 401
    assert (await router.http(issue_key(), peer=FAR).get("/metrics")).status_code == 401
    for (workspace, role), key in keys.items():
        answer = await router.http(key, peer=FAR).get("/metrics")
        allowed = workspace == "default" and role in ("admin", "developer")
        assert answer.status_code == (200 if allowed else 403), (workspace, role)
        assert allowed or answer.json()["error"]["type"] == "permission_error"


async def test_which_networks_are_open_is_configured(make_router: MakeRouter) -> None:
    router = await make_router(forever, metrics_networks=["203.0.113.0/24"], trusted_proxies=["127.0.0.1/32"])
    assert (await router.http(None, peer=FAR).get("/metrics")).status_code == 200
    assert (await router.http(None, peer="::1").get("/metrics")).status_code == 401
    for client, status in ((FAR, 200), ("198.51.100.1", 401)):
        answer = await router.http(None).get("/metrics", headers={"x-forwarded-for": client})
        assert answer.status_code == status
    closed = await make_router(forever, metrics_networks=[])
    assert (await closed.http(None).get("/metrics")).status_code == 401


async def test_prompts_keys_and_made_up_names_are_not_in_it(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    await router.http().post(CHAT, json=body(user="a-secret-user"))
    await router.http().post(CHAT, json=body(model="made-up-model"))
    text = (await router.http(None).get("/metrics")).text
    assert not [word for word in (KEY, hash_key(KEY), "hello", "a-secret-user", "made-up-model") if word in text]
