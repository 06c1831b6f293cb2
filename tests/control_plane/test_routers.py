"""Two routers that follow one control plane: what it decides about a key holds on both within a second."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.records import DEFAULT_WORKSPACE
from app.router.deployment import RouterArgs, asgi
from app.router.directory import Directory
from app.router.figures import Figures
from app.router.limits import Limits
from app.router.stream import TokenListener
from app.router.usage import UsageMeter
from app.store.objects import open_store
from tests.control_plane.platforms import WAIT_S, spec, until
from tests.router.tables import Book, Others

LIMIT_S = 1.0


class Following:
    """The long-poll of one router, without Serve's handle in between."""

    def __init__(self, platform: Platform, router: str):
        self._platform = platform
        self._router = router

    async def next_table(self, after: int, wait_s: float) -> bytes | None:
        return await asyncio.to_thread(self._platform.tables.wait, after, wait_s, self._router)


@pytest.fixture
async def routers(platform: Platform) -> AsyncIterator[list[Directory]]:
    """What each of two routers knows; both wait for news."""
    routers = [Directory(open_store(platform.settings), Following(platform, name)) for name in ("a", "b")]
    tasks = [asyncio.create_task(router.follow()) for router in routers]
    async with asyncio.timeout(WAIT_S):
        while not all(router.control_plane_reachable for router in routers):  # noqa: ASYNC110 (they tell nobody)
            await asyncio.sleep(0.005)
    yield routers
    for task in tasks:
        task.cancel()
    platform.keys.issue(DEFAULT_WORKSPACE, "inference", "the news that lets the threads go which still wait")


def callers(routers: Iterable[Directory], key: str) -> list[httpx.AsyncClient]:
    """A client of each router that calls with this key."""
    args, headers, meter = RouterArgs(), {"authorization": f"Bearer {key}"}, UsageMeter(Book())
    return [
        httpx.AsyncClient(
            transport=httpx.ASGITransport(
                asgi(args, router, TokenListener(), "http://127.0.0.1:1", Figures(name), Limits(), Others(), meter)
            ),
            base_url="http://router", headers=headers, timeout=WAIT_S,
        )
        for name, router in zip("ab", routers, strict=True)
    ]  # fmt: skip


async def everywhere(clients: list[httpx.AsyncClient], status: int) -> list[httpx.Response]:
    """The answers once all routers give this one; it is an error when that takes longer than it may."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            answers = [await client.get("/v1/models") for client in clients]
            if {answer.status_code for answer in answers} == {status}:
                return answers
            await asyncio.sleep(0.005)


async def test_a_key_works_and_a_revoked_one_stops_on_every_router_within_a_second(
    admin: httpx.AsyncClient, routers: list[Directory]
) -> None:
    issued = (await admin.post("/api-keys", json={"role": "inference"})).json()
    clients = callers(routers, issued["key"])
    await everywhere(clients, 200)
    assert (await admin.delete(f"/api-keys/{issued['id']}?confirm=DELETE")).status_code == 204
    await everywhere(clients, 401)


async def test_a_member_who_is_taken_away_is_out_on_every_router_within_a_second(
    admin: httpx.AsyncClient, routers: list[Directory]
) -> None:
    member = (await admin.post("/members", json={"name": "ann", "role": "developer"})).json()["id"]
    key = (await admin.post("/api-keys", json={"role": "developer", "member": member})).json()["key"]
    clients = callers(routers, key)
    await everywhere(clients, 200)
    assert (await admin.delete(f"/members/{member}?confirm=DELETE")).status_code == 204
    await everywhere(clients, 401)


async def test_every_router_knows_the_same_endpoints(
    admin: httpx.AsyncClient, platform: Platform, routers: list[Directory]
) -> None:
    endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, spec("one"))
    await asyncio.to_thread(until, lambda: platform.endpoints.get(DEFAULT_WORKSPACE, endpoint.id).state == "healthy")
    key = (await admin.post("/api-keys", json={"role": "inference"})).json()["key"]
    for answer in await everywhere(callers(routers, key), 200):
        assert [model["id"] for model in answer.json()["data"]] == [endpoint.id]
