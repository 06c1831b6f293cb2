"""Who may call an endpoint from where."""

import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import uvicorn

from app.core.routing import RoutingTable
from app.router.deployment import RouterArgs
from app.router.http_server import server_config
from tests.router.tables import KEY, OTHER_KEY, MakeRouter, table
from tests.router.test_chat import CHAT, body, whole
from tests.router.units import WAIT_S

ServeWith = Callable[..., str]


def allowing(*networks: str) -> RoutingTable:
    plain = table()
    routes = {name: route.model_copy(update={"allowed_networks": networks}) for name, route in plain.routes.items()}
    return plain.model_copy(update={"routes": routes})


@pytest.mark.parametrize(
    ("peer", "status"),
    [("192.0.2.7", 200), ("2001:db8::7", 200), ("::ffff:192.0.2.7", 200), ("192.0.3.7", 403), ("127.0.0.1", 403)],
)
async def test_an_endpoint_may_be_for_some_networks_only(make_router: MakeRouter, peer: str, status: int) -> None:
    router = await make_router(whole, snapshot=allowing("192.0.2.0/24", "2001:db8::/32"))
    answer = await router.http(peer=peer).post(CHAT, json=body())
    assert answer.status_code == status
    if status == 403:
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("network_not_allowed", "permission_error")
        assert peer not in answer.text
        assert router.units.responses == []


async def test_from_outside_nobody_learns_more_than_before(make_router: MakeRouter) -> None:
    """No key, another's endpoint and an unknown one look as they look from inside."""
    router = await make_router(whole, snapshot=allowing("192.0.2.0/24"))
    assert (await router.http(None).post(CHAT, json=body())).status_code == 401
    theirs, unknown = [await router.http().post(CHAT, json=body(model=m)) for m in ("ep-theirs", "ep-9")]
    assert (theirs.status_code, theirs.json()) == (unknown.status_code, unknown.json())
    assert (await router.http(OTHER_KEY).post(CHAT, json=body(model="theirs"))).status_code == 403


@pytest.mark.parametrize(
    ("forwarded_for", "status"),
    [
        (["192.0.2.7"], 200),
        (["203.0.113.1, 192.0.2.7"], 200),
        (["192.0.2.7, 203.0.113.1"], 403),  # the client made up the first one
        (["192.0.2.7", "203.0.113.1"], 403),  # the same, and the proxy wrote a header of its own
        (["203.0.113.1", "192.0.2.7"], 200),
        ([], 403),
    ],
)
async def test_a_trusted_proxy_says_who_the_client_is(
    make_router: MakeRouter, forwarded_for: list[str], status: int
) -> None:
    router = await make_router(whole, snapshot=allowing("192.0.2.0/24"), trusted_proxies=["10.0.0.0/8"])
    headers = [("x-forwarded-for", value) for value in forwarded_for]
    answer = await router.http(peer="10.0.0.1").post(
        CHAT, json=body(), headers=[*headers, ("authorization", f"Bearer {KEY}")]
    )
    assert answer.status_code == status


async def test_anybody_else_may_claim_what_he_likes(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=allowing("192.0.2.0/24"), trusted_proxies=["10.0.0.0/8"])
    for peer in ("127.0.0.1", "203.0.113.1"):
        answer = await router.http(peer=peer).post(CHAT, json=body(), headers={"x-forwarded-for": "192.0.2.7"})
        assert answer.status_code == 403


async def test_the_listener_itself_believes_no_header_either(make_router: MakeRouter, serve_with: ServeWith) -> None:
    """uvicorn, as it is by default, takes the word of every client on this machine."""
    router = await make_router(whole, snapshot=allowing("192.0.2.0/24"))
    async with httpx.AsyncClient(
        base_url=serve_with(server_config(router.app)), timeout=WAIT_S, trust_env=False
    ) as http:
        headers = {"authorization": f"Bearer {KEY}", "x-forwarded-for": "192.0.2.7"}
        assert (await http.post(CHAT, json=body(), headers=headers)).status_code == 403
    config = uvicorn.Config(router.app, lifespan="off", log_config=None)  # else the test above proves nothing
    async with httpx.AsyncClient(base_url=serve_with(config), timeout=WAIT_S, trust_env=False) as http:
        assert (await http.post(CHAT, json=body(), headers=headers)).status_code == 200


async def test_a_client_without_an_address_is_in_no_network(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=allowing("0.0.0.0/0", "::/0"))
    transport = httpx.ASGITransport(router.app, client=("", 0))
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://router", headers=headers) as http:
        assert (await http.post(CHAT, json=body())).status_code == 403


def test_arguments_take_networks_only() -> None:
    assert RouterArgs.model_validate({"trusted_proxies": ["10.0.0.0/8"]}).trusted_proxies == ["10.0.0.0/8"]
    for wrong in (["10.0.0.1/8"], ["proxy"], "10.0.0.0/8"):
        with pytest.raises(ValueError, match="trusted_proxies"):
            RouterArgs.model_validate({"trusted_proxies": wrong})


async def test_a_key_that_is_revoked_while_the_body_comes_is_no_key(make_router: MakeRouter) -> None:
    router = await make_router(whole)

    async def slowly() -> AsyncIterator[bytes]:
        content = json.dumps(body()).encode()
        yield content[:9]
        router.publish(table(8).model_copy(update={"grants": {}}))
        yield content[9:]

    assert (await router.http().post(CHAT, content=slowly())).status_code == 401
    assert router.units.responses == []
