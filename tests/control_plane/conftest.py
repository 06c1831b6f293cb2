"""A control plane on a temporary registry and object store."""

import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.platform import Platform, utc_now
from app.core.specs import EndpointSpec
from app.settings import Settings
from tests.control_plane.clocks import WallClock
from tests.control_plane.platforms import WAIT_S, FakeCluster, admin_key, client_of, publish_model, settings_in

ON_POSTGRESQL_EVERY = 4
UNHURRIED = {"changes_per_key_s": 1_000_000}
"""Tests are faster than people."""
BUSY_S = 0.05
"""Between two steps of a platform that waits for what a test plays."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tests here, one in four runs on PostgreSQL too, always the same ones; `make soak` runs them all there."""
    for item in items:
        if "test_fuzz" in item.nodeid or "control_plane/" not in item.nodeid or "[postgresql" not in item.nodeid:
            continue
        if zlib.crc32(item.nodeid.encode()) % ON_POSTGRESQL_EVERY:
            item.add_marker("soak")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Where the registry is: in HOME, or on a PostgreSQL server.

    A test that has nothing to gain from the second marks itself ONE_DATABASE, see platforms.py.
    """
    if request.param == "sqlite":
        yield None
        return
    with request.getfixturevalue("postgresql").registry_database() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, database_url: str | None, request: pytest.FixtureRequest) -> Settings:
    """A HOME with an empty registry, and one model in its object store."""
    settings = settings_in(tmp_path / "home", database_url)
    publish_model(settings)
    if database_url is None:
        shutil.copy(request.getfixturevalue("migrated_file"), settings.home / "registry.db")
    return settings


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


OpenPlatform = Callable[..., Platform]
ClientFor = Callable[[str | None], httpx.AsyncClient]


@pytest.fixture
def open_platform(settings: Settings, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenPlatform]:
    """Opens platforms on the same HOME, one after the other as a restart does; all are closed in the end.

    Takes what a serve config declares, and the other fields of ControlPlaneArgs by name.
    """
    opened: list[Platform] = []
    for name in ("ENDPOINTS_BUSY_S", "JOBS_BUSY_S"):
        monkeypatch.setattr(f"app.control_plane.platform.{name}", BUSY_S)

    def close(platform: Platform) -> None:
        platform.close()
        deadline = time.monotonic() + WAIT_S
        while any(loop.alive for loop in platform.loops) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not any(loop.alive for loop in platform.loops)

    def open_one(
        *declared: EndpointSpec,
        on: FakeCluster = cluster,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        **args: Any,
    ) -> Platform:
        while opened:
            close(opened.pop())
        given = ControlPlaneArgs(endpoints=list(declared), **UNHURRIED | args)
        platform = Platform(settings, on, given, routers_timeout_s=0, clock=clock, now=now)
        opened.append(platform)
        platform.open()
        return platform

    yield open_one
    while opened:
        close(opened.pop())


@pytest.fixture
def wall() -> WallClock:
    return WallClock()


@pytest.fixture
def platform(open_platform: OpenPlatform, wall: WallClock) -> Platform:
    return open_platform(now=wall)


@pytest.fixture
def client_for(platform: Platform) -> ClientFor:
    """A client of the control API that calls with a key."""
    return lambda key: client_of(platform, key)


@pytest.fixture
def admin(client_for: ClientFor, settings: Settings) -> httpx.AsyncClient:
    """Calls with the key in HOME/admin.key."""
    return client_for(admin_key(settings))
