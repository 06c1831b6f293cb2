"""Stop rules and tombstones by a clock that jumps."""

from contextlib import nullcontext
from datetime import timedelta

import pytest

from app.control_plane.platform import Platform
from app.control_plane.services.tombstones import Tombstones
from app.core.records import Endpoint, EndpointMinute, Event
from app.core.specs import EndpointSpec
from tests.control_plane.clocks import WallClock
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import FakeCluster, by_name, change, spec
from tests.control_plane.reports import FakeRouter


@pytest.fixture
def platform(open_platform: OpenPlatform, wall: WallClock) -> Platform:
    """Nothing goes by itself: tests step."""
    platform = open_platform(now=wall)
    for loop in platform.loops:
        loop.stop()
    return platform


def settle(platform: Platform) -> None:
    for _ in range(3):
        platform.reconciler.step()


def serving(platform: Platform, wish: EndpointSpec) -> Endpoint:
    platform.endpoints.create("default", wish)
    settle(platform)
    endpoint = by_name(platform)[wish.name]
    assert endpoint.state == "healthy"
    return endpoint


def kinds(platform: Platform, endpoint: Endpoint) -> list[str]:
    return [event.kind for event in platform.registry.find(Event, subject=endpoint.id)]


def test_an_endpoint_stops_after_its_time_in_service(platform: Platform, cluster: FakeCluster, wall: WallClock) -> None:
    cluster.refuses = lambda _: True
    platform.endpoints.create("default", spec("timed", auto_stop_s=3600))
    settle(platform)
    wall.jump(days=5)  # it prepares for long
    platform.stop_rules.step()
    cluster.refuses = lambda _: False
    stopped = by_name(platform)["timed"]
    assert (stopped.state, stopped.running_since) == ("abnormal", None)
    platform.endpoints.patch("default", stopped.id, {"description": "try again at once"})
    settle(platform)
    assert by_name(platform)["timed"].state == "healthy"
    wall.jump(seconds=3599)
    platform.stop_rules.step()
    assert by_name(platform)["timed"].state == "healthy"
    wall.jump(seconds=2)
    platform.stop_rules.step()
    settle(platform)
    ended = by_name(platform)["timed"]
    assert (ended.state, ended.running_since, cluster.applications) == ("stopped", None, {})
    assert "auto_stop_s" in ended.reason
    platform.endpoints.start("default", ended.id)
    settle(platform)
    wall.jump(seconds=3599)
    platform.stop_rules.step()
    assert by_name(platform)["timed"].state == "healthy"  # the time begins again


def test_a_declared_endpoint_stops_in_its_time_and_can_be_started(open_platform: OpenPlatform, wall: WallClock) -> None:
    declared = spec("declared", auto_stop_s=60)
    platform = open_platform(declared, now=wall)
    for loop in platform.loops:
        loop.stop()
    settle(platform)
    wall.jump(minutes=2)
    platform.stop_rules.step()
    assert by_name(platform)["declared"].state == "stopped"
    platform.declarations.declare([declared])  # as after a restart
    assert by_name(platform)["declared"].state == "stopped"
    platform.endpoints.start("default", by_name(platform)["declared"].id)
    settle(platform)
    assert by_name(platform)["declared"].state == "healthy"


def test_without_traffic_it_is_announced_and_deleted_and_can_be_restored(platform: Platform, wall: WallClock) -> None:
    quiet = serving(platform, spec("quiet", scale={"min_units": 0}))
    kept = serving(platform, spec("kept"))
    wall.jump(days=5, hours=23)
    platform.stop_rules.step()
    assert "idle_warning" not in kinds(platform, quiet)
    wall.jump(hours=2)
    platform.stop_rules.step()
    platform.stop_rules.step()
    assert kinds(platform, quiet).count("idle_warning") == 1
    wall.jump(hours=21)
    platform.stop_rules.step()
    assert by_name(platform)["quiet"].state == "healthy"
    wall.jump(hours=4)
    platform.stop_rules.step()
    settle(platform)
    assert set(by_name(platform)) == {"kept"}
    assert kinds(platform, kept)[-1] == "healthy"
    platform.endpoints.restore("default", quiet.id)
    settle(platform)
    platform.stop_rules.step()
    assert by_name(platform)["quiet"].state == "healthy"  # its week begins again


def test_a_request_keeps_it(platform: Platform, wall: WallClock) -> None:
    quiet = serving(platform, spec("quiet", scale={"min_units": 0}))
    wall.jump(days=6, hours=1)
    platform.stop_rules.step()
    assert "idle_warning" in kinds(platform, quiet)
    change(platform, quiet, last_request_at=wall())
    wall.jump(days=5)
    platform.stop_rules.step()
    assert by_name(platform)["quiet"].state == "healthy"
    assert kinds(platform, quiet).count("idle_warning") == 1


def test_after_an_outage_of_the_control_plane_routers_are_heard_first(
    platform: Platform, open_platform: OpenPlatform, wall: WallClock
) -> None:
    """Routers go on serving without it: what the records say of the last request is as old as the outage."""
    used, quiet = (serving(platform, spec(name, scale={"min_units": 0})) for name in ("used", "quiet"))
    wall.jump(days=6, hours=1)
    platform.stop_rules.step()
    assert "idle_warning" in kinds(platform, used)
    wall.jump(days=2)
    platform = open_platform(now=wall)
    for loop in platform.loops:
        loop.stop()
    platform.stop_rules.step()
    settle(platform)
    assert set(by_name(platform)) == {"used", "quiet"}
    router = FakeRouter("r1", wall())
    router.serve(used.id, wall() - timedelta(hours=1), s2xx=1)
    router.report(platform.figures)  # it is written down with its minute only
    wall.jump(minutes=5, seconds=1)
    platform.stop_rules.step()
    settle(platform)
    assert set(by_name(platform)) == {"used"}
    assert kinds(platform, quiet)[-1] == "deleted"


def test_a_tombstone_stays_for_30_days(platform: Platform, wall: WallClock) -> None:
    endpoint = serving(platform, spec("gone"))
    figures = EndpointMinute(id="min-1", created_at=wall(), endpoint_id=endpoint.id, figures={"requests": 1})
    platform.registry.put(figures)
    platform.endpoints.delete("default", endpoint.id)
    settle(platform)
    wall.jump(days=29, hours=23)
    platform.stop_rules.step()
    (tombstone,) = platform.endpoints.find("default", deleted=True)
    assert platform.tombstones.purge_at(tombstone) == (tombstone.deleted_at or wall()) + timedelta(days=30)
    wall.jump(hours=2)
    platform.stop_rules.step()
    assert platform.registry.find(Endpoint) == platform.registry.find(EndpointMinute) == []
    assert kinds(platform, endpoint)[-1] == "purged"


def test_many_tombstones_go_without_holding_up_others(platform: Platform, wall: WallClock) -> None:
    """Callers wait for the lock; each time it is free, this many are left."""
    gone = [
        Endpoint(id=f"ep-{i}", created_at=wall(), deleted_at=wall(), workspace="default", spec=spec(), state="deleting")
        for i in range(120)
    ]
    kept, _ = platform.keys.issue("default", "inference", "")
    platform.registry.put(*gone, kept.model_copy(update={"endpoints": ("ep-1", "ep-2", "ep-x")}))
    left: list[int] = []

    class Lock(nullcontext[None]):
        def __exit__(self, *error: object) -> None:
            left.append(platform.registry.count(Endpoint))

    wall.jump(days=31)
    tombstones = Tombstones(platform.registry, platform.endpoints, Lock(), timedelta(days=30), wall)  # type: ignore[arg-type]
    tombstones.purge_old()
    assert left == [70, 20, 0]
    assert platform.registry.count(Event, kind="purged") == 120
    assert platform.keys.get("default", kept.id).endpoints == ("ep-x",)


def test_both_times_are_settings(open_platform: OpenPlatform, wall: WallClock) -> None:
    platform = open_platform(now=wall, idle_delete_days=2, tombstones_kept_days=1)
    for loop in platform.loops:
        loop.stop()
    serving(platform, spec("quiet", scale={"min_units": 0}))
    for _ in range(2):
        wall.jump(days=1, minutes=1)
        platform.stop_rules.step()
    settle(platform)
    assert by_name(platform) == {}
    wall.jump(days=1)
    platform.stop_rules.step()
    assert platform.registry.find(Endpoint) == []


def test_one_that_cannot_be_stopped_holds_up_no_other(
    platform: Platform, wall: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        serving(platform, spec(name, auto_stop_s=60))
    wall.jump(minutes=2)
    rest = platform.wishes.rest

    def refuses_one(endpoint: Endpoint, state: str, reason: str) -> Endpoint:
        if endpoint.spec.name == "one":
            raise RuntimeError("no")
        return rest(endpoint, state, reason)  # type: ignore[arg-type]

    monkeypatch.setattr(platform.wishes, "rest", refuses_one)
    platform.stop_rules.step()
    states = {name: endpoint.state for name, endpoint in by_name(platform).items()}
    assert states == {"one": "healthy", "two": "stopped"}
