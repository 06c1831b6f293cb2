"""What units say while they start: how long it is kept, and what becomes of it in records, events and tables."""

import inspect
from dataclasses import replace

import pytest

from app.control_plane.deployment import ControlPlane
from app.control_plane.platform import Platform
from app.control_plane.services import unit_phases
from app.control_plane.services.unit_phases import KEPT_S, UnitPhases
from app.core.lifecycle import ApplicationStatus, Seen
from app.core.records import Endpoint, Event
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import FakeCluster, by_name, change, spec, table_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def phases(clock: Clock) -> UnitPhases:
    return UnitPhases(clock)


def test_the_newest_phase_counts_and_is_forgotten_after_a_while(phases: UnitPhases, clock: Clock) -> None:
    phases.hear("ep-1", "r1", "a", "checking weights")
    clock.now += KEPT_S - 1
    phases.hear("ep-1", "r1", "a", "starting the engine")
    phases.hear("ep-1", "r2", "b", "checking weights")
    assert phases.current() == {("ep-1", "r1"): "starting the engine", ("ep-1", "r2"): "checking weights"}
    clock.now += KEPT_S - 1
    phases.hear("ep-1", "r2", "b", "checking weights")
    clock.now += 1
    assert phases.current() == {("ep-1", "r2"): "checking weights"}


def test_the_unit_that_began_first_speaks_for_its_revision(phases: UnitPhases) -> None:
    for unit, phase in (("a", "1"), ("b", "2"), ("a", "3")):
        phases.hear("ep-1", "r1", unit, phase)
        assert phases.current() == {("ep-1", "r1"): "3" if phase == "3" else "1"}


def test_an_endpoint_that_is_gone_is_forgotten(phases: UnitPhases) -> None:
    phases.hear("ep-1", "r1", "a", "checking weights")
    phases.hear("ep-2", "r1", "a", "checking weights")
    phases.forget("ep-1")
    assert phases.current() == {("ep-2", "r1"): "checking weights"}


def test_only_so_much_is_kept(phases: UnitPhases, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_phases, "MAX_UNITS", 2)
    for number in range(5):
        phases.hear(f"ep-{number}", "r1", "a", "x" * 10_000)
    assert phases.current() == {(f"ep-{number}", "r1"): "x" * unit_phases.MAX_LENGTH for number in range(2)}
    clock.now += KEPT_S
    assert phases.current() == {}
    phases.hear("ep-5", "r1", "a", "checking weights")
    assert phases.current() == {("ep-5", "r1"): "checking weights"}


# In a control plane.


@pytest.fixture
def starting(open_platform: OpenPlatform, cluster: FakeCluster, clock: Clock) -> Platform:
    """One endpoint whose unit starts; the reconciler makes a step when it is told to."""
    platform = open_platform(clock=clock)
    platform.close()
    platform.endpoints.create("default", spec("one"))
    platform.reconciler.step()
    becomes(platform, cluster, "starting")
    platform.reconciler.step()
    return platform


def only(platform: Platform) -> Endpoint:
    return by_name(platform)["one"]


def becomes(platform: Platform, cluster: FakeCluster, status: ApplicationStatus, **fields: object) -> None:
    for key, app in cluster.applications.items():
        cluster.applications[key] = replace(app, status=status, running_units=0, **fields)  # type: ignore[arg-type]


def revision(cluster: FakeCluster) -> str:
    return next(reversed(cluster.applications))[1]


def hears(platform: Platform, cluster: FakeCluster, phase: str) -> str:
    """A unit of the newest revision says so; returns what the endpoint's record says then."""
    platform.phases.hear(only(platform).id, revision(cluster), "unit", phase)
    platform.reconciler.step()
    return only(platform).reason


def told(platform: Platform) -> list[str]:
    return [
        event.message
        for event in platform.registry.find(Event, subject=only(platform).id)
        if event.kind == "scheduling"
    ]


def test_the_reason_follows_what_the_unit_says(starting: Platform, cluster: FakeCluster, clock: Clock) -> None:
    assert only(starting).reason == "the first unit is starting"
    assert hears(starting, cluster, "checking weights") == "the first unit is checking weights"
    assert hears(starting, cluster, "starting the engine") == "the first unit is starting the engine"
    clock.now += KEPT_S
    starting.reconciler.step()
    assert only(starting).reason == "the first unit is starting"
    assert only(starting).state == "scheduling"


def test_progress_is_no_event_and_no_table(starting: Platform, cluster: FakeCluster) -> None:
    before = told(starting)
    hears(starting, cluster, "fetching weights: 0.0 of 4.7 GiB")
    number = table_of(starting).number
    for tenths in range(1, 47):
        reason = hears(starting, cluster, f"fetching weights: {tenths / 10} of 4.7 GiB")
        assert reason == f"the first unit is fetching weights: {tenths / 10} of 4.7 GiB"
    table = table_of(starting)
    assert table.number == number
    assert table.routes[only(starting).id].reason == "the first unit is fetching weights"
    hears(starting, cluster, "checking weights")
    assert told(starting)[len(before) :] == [
        "the first unit is fetching weights",
        "the first unit is checking weights",
    ]


def test_what_the_cluster_lacks_is_said_until_a_unit_speaks(starting: Platform, cluster: FakeCluster) -> None:
    becomes(starting, cluster, "starting", phase="waiting for 2 x H100, 1 free")
    starting.reconciler.step()
    assert only(starting).reason == "the first unit is waiting for 2 x H100, 1 free"
    assert hears(starting, cluster, "checking weights") == "the first unit is checking weights"


def test_a_new_revision_says_what_it_does(starting: Platform, cluster: FakeCluster) -> None:
    for key, app in cluster.applications.items():
        cluster.applications[key] = replace(app, status="running", running_units=1)
    starting.reconciler.step()
    endpoint = only(starting)
    change(starting, endpoint, spec=spec("one", max_model_len=64), generation=2)
    starting.reconciler.step()
    key = (endpoint.id, revision(cluster))
    cluster.applications[key] = Seen(*key, "starting")
    assert hears(starting, cluster, "checking weights") == "a new revision is starting: checking weights"
    assert only(starting).state == "upgrading"


def test_a_failed_start_looks_for_other_weights(
    starting: Platform, cluster: FakeCluster, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted: list[float] = []
    monkeypatch.setattr(starting.models, "adopt", lambda: adopted.append(clock.now))
    becomes(starting, cluster, "failed", reason="the weights changed since this revision was made")
    starting.reconciler.step()
    assert not adopted
    clock.now += 61
    starting.reconciler.step()  # takes away what failed
    starting.reconciler.step()  # and looks before it deploys again
    assert adopted == [clock.now]


def test_units_reach_it_by_the_name_that_they_call() -> None:
    assert list(inspect.signature(ControlPlane.unit_phase).parameters)[1:] == [
        "endpoint_id", "revision", "unit", "phase",
    ]  # fmt: skip
