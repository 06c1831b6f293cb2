"""A control plane that was replaced, but does not know it yet, over the same registry and object store."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import pytest

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import ControlPlane
from app.control_plane.platform import Platform, utc_now
from app.control_plane.reconciler import RETRY_FAILED_S
from app.core.errors import Superseded
from app.core.records import DEFAULT_WORKSPACE, Endpoint
from app.settings import Settings
from app.store.database import Registry
from tests.control_plane.platforms import FakeCluster, admin_key, by_name, client_of, saved_table, spec, table_of, until


@pytest.fixture
def successor(settings: Settings, cluster: FakeCluster, platform: Platform) -> Iterator[Platform]:
    """Opened while `platform` still runs."""
    successor = Platform(settings, cluster, ControlPlaneArgs(), routers_timeout_s=0)
    successor.open()
    yield successor
    successor.close()


def client(platform: Platform, settings: Settings) -> httpx.AsyncClient:
    return client_of(platform, admin_key(settings))


async def test_the_one_before_ends_its_loops_and_is_no_longer_healthy(platform: Platform, settings: Settings) -> None:
    serving = SimpleNamespace(_platform=platform)
    await ControlPlane.check_health(serving)  # type: ignore[arg-type]
    successor = Platform(settings, FakeCluster(), ControlPlaneArgs(), routers_timeout_s=0)
    successor.open()
    for loop in platform.loops:
        loop.nudge()
    until(lambda: not any(loop.alive for loop in platform.loops))
    with pytest.raises(RuntimeError, match="loop has stopped"):
        await ControlPlane.check_health(serving)  # type: ignore[arg-type]
    await ControlPlane.check_health(SimpleNamespace(_platform=successor))  # type: ignore[arg-type]
    successor.close()


async def test_what_is_wished_of_the_one_before_is_refused_and_nothing_of_it_stays(
    platform: Platform, successor: Platform, settings: Settings
) -> None:
    async with client(platform, settings) as old, client(successor, settings) as new:
        refused = await old.post("/endpoints", json={"name": "lost", "model": "m-1"})
        assert refused.status_code == 503
        assert refused.json()["error"]["message"] == "Another control plane has taken over."
        assert "retry-after" in refused.headers
        assert (await new.post("/endpoints", json={"name": "kept", "model": "m-1"})).status_code == 202
        assert set(by_name(platform)) == set(by_name(successor)) == {"kept"}
        until(lambda: by_name(successor)["kept"].state == "healthy")


def test_the_one_before_publishes_no_table(
    open_platform: Callable[..., Platform], settings: Settings, cluster: FakeCluster
) -> None:
    platform = open_platform(spec("a"))
    until(lambda: by_name(platform)["a"].state == "healthy")
    last = platform.tables.wait(-1, 0)
    successor = Platform(settings, cluster, ControlPlaneArgs(endpoints=[spec("a")]), routers_timeout_s=0)
    successor.open()
    stale = by_name(platform)["a"].model_copy(update={"reason": "as it was long ago"})
    with pytest.raises(Superseded):
        platform.tables.publish({stale.id: stale})
    assert platform.tables.wait(-1, 0) == last
    saved = saved_table(settings)
    assert [route.reason for route in saved.routes.values()] == [""]
    successor.close()


def test_the_one_before_does_nothing_to_the_cluster(
    platform: Platform, settings: Settings, cluster: FakeCluster
) -> None:
    """It is replaced in the middle of a step, after it has looked at what there is."""
    for loop in platform.loops:
        loop.stop()
    platform.endpoints.create(DEFAULT_WORKSPACE, spec("one"))
    successor = Registry(settings.database)
    cluster.on_observe = lambda: successor.take_turn() and None
    with pytest.raises(Superseded):
        platform.reconciler.step()
    assert cluster.deploys == []
    successor.close()


def test_the_one_before_takes_away_nothing_that_failed(
    open_platform: Callable[..., Platform], settings: Settings, cluster: FakeCluster
) -> None:
    now = [1000.0]
    platform = open_platform(spec("one"), clock=lambda: now[0])
    until(lambda: by_name(platform)["one"].state == "healthy")
    for loop in platform.loops:
        loop.stop()
    cluster.becomes(by_name(platform)["one"].id, "failed", "no weights")
    platform.reconciler.step()
    now[0] += RETRY_FAILED_S
    successor = Registry(settings.database)
    cluster.on_observe = lambda: successor.take_turn() and None
    before = dict(cluster.applications)
    with pytest.raises(Superseded):
        platform.reconciler.step()
    assert cluster.applications == before
    successor.close()


def test_no_two_control_planes_give_tables_the_same_number(
    platform: Platform, successor: Platform, settings: Settings
) -> None:
    before, after = (table_of(one) for one in (platform, successor))
    # As far as the one before could come, had it been in the middle of publishing.
    assert before.number + 1_000_000 < after.number
    successor.registry.put(
        Endpoint(id="ep-1", created_at=utc_now(), workspace=DEFAULT_WORKSPACE, spec=spec(), revision="r-1")
    )
    successor.tables.publish()
    assert saved_table(settings).number > after.number
