"""The object store, the cluster or the database away: what is known goes on, and what was done is not refused."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.control_plane import platform as composition
from app.control_plane.platform import Platform
from app.core.errors import Unavailable
from app.core.keys import hash_key
from app.core.waiting import Room
from app.settings import Settings
from app.store.object_store import ObjectStore, StoreUnavailable
from app.store.objects import open_store
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import (
    ONE_DATABASE,
    FakeCluster,
    admin_key,
    by_name,
    client_of,
    saved_table,
    spec,
    table_of,
    until,
)

pytestmark = ONE_DATABASE


class Outage:
    """Ends the object store's answers, and begins them again."""

    away = False

    def over(self, store: ObjectStore) -> Any:
        return SimpleNamespace(**{name: self._while_there(store, name) for name in dir(store) if name[0] != "_"})

    def _while_there(self, store: ObjectStore, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.away:
                raise StoreUnavailable("no answer")
            return getattr(store, name)(*args, **kwargs)

        return call


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    outage = Outage()
    monkeypatch.setattr(composition, "open_store", lambda settings: outage.over(open_store(settings)))
    return outage


@pytest.fixture
def platform(outage: Outage, open_platform: OpenPlatform) -> Platform:
    return open_platform(spec("one"))


async def test_keys_come_and_go_while_the_object_store_is_away(
    outage: Outage, platform: Platform, settings: Settings, admin: httpx.AsyncClient
) -> None:
    outage.away = True
    issued = await admin.post("/api-keys", json={"role": "inference"})
    assert issued.status_code == 201
    key = issued.json()
    assert hash_key(key["key"]) in table_of(platform).grants
    assert (await admin.delete(f"/api-keys/{key['id']}?confirm=DELETE")).status_code == 204
    assert hash_key(key["key"]) not in table_of(platform).grants
    assert saved_table(settings).number < table_of(platform).number
    outage.away = False
    platform.snapshot_loop.nudge()
    until(lambda: saved_table(settings) == table_of(platform))


async def test_what_is_written_down_is_answered_though_routers_cannot_be_told(
    platform: Platform, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise Unavailable("The registry cannot be used at the moment.")

    with monkeypatch.context() as patched:
        patched.setattr(platform.tables, "publish", fails)
        issued = await admin.post("/api-keys", json={"role": "inference"})
    assert issued.status_code == 201
    platform.endpoint_loop.nudge()
    until(lambda: hash_key(issued.json()["key"]) in table_of(platform).grants)


def test_it_starts_without_the_object_store(outage: Outage, open_platform: OpenPlatform) -> None:
    before = table_of(open_platform(spec("one")))
    outage.away = True
    platform = open_platform(spec("one"))
    until(lambda: by_name(platform)["one"].state == "healthy")
    assert table_of(platform).number > before.number
    assert table_of(platform).grants == before.grants


async def test_it_starts_without_the_cluster(
    open_platform: OpenPlatform, cluster: FakeCluster, settings: Settings
) -> None:
    def away() -> None:
        raise ConnectionError("no cluster")

    cluster.on_observe = away
    platform = open_platform(spec("one"))
    async with client_of(platform, admin_key(settings)) as admin:
        assert (await admin.get("/endpoints")).status_code == 200
    cluster.on_observe = lambda: None
    until(lambda: by_name(platform)["one"].state == "healthy")


def test_two_that_take_the_turn_from_each_other_say_so(
    open_platform: OpenPlatform, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    platform = open_platform()
    successor = Platform(settings, FakeCluster(), platform.args, routers_timeout_s=0)
    successor.open()
    for loop in platform.loops:
        loop.nudge()
    until(lambda: not any(loop.alive for loop in platform.loops))
    successor.close()
    assert "turn 1 " in caplog.text
    assert "turn 2 " in caplog.text
    assert "two clusters use one database" in caplog.text


def test_nobody_else_waits_while_the_cluster_is_asked(platform: Platform, cluster: FakeCluster) -> None:
    """It may take seconds to answer, and whoever holds the lock holds up everyone."""
    free: list[bool] = []

    def take_the_lock() -> None:
        free.append(platform.lock.acquire(timeout=1))
        if free[-1]:
            platform.lock.release()

    def rooms() -> list[Room]:
        with ThreadPoolExecutor(1) as others:
            others.submit(take_the_lock).result()
        raise ConnectionError("no answer")

    for loop in platform.loops:
        loop.stop()
    platform.machines._rooms = rooms
    mine = platform.endpoints.create("default", spec("mine")).id
    platform.endpoints.patch("default", mine, {"scale": {"max_units": 3}})
    platform.endpoints.stop("default", mine)
    platform.endpoints.start("default", mine)
    platform.endpoints.delete("default", mine)
    platform.endpoints.restore("default", mine)
    platform.declarations.declare([spec("one", max_model_len=64)])
    assert free == [True] * 5
