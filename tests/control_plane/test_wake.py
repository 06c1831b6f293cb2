"""Waking by hand, what becomes of a wake that fails, and how long starts are expected to take."""

import asyncio
from collections.abc import Generator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.control_plane import cluster as cluster_module
from app.control_plane.cluster import Cluster
from app.control_plane.platform import Platform, utc_now
from app.control_plane.services.unit_phases import READY, READY_KEPT_S
from app.control_plane.services.unit_starts import KEPT
from app.core.records import Endpoint, Event, UnitStart
from app.core.routing import Route
from app.core.wakes import STAGES
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import (
    ONE_DATABASE,
    WAIT_S,
    FakeCluster,
    admin_key,
    change,
    client_of,
    spec,
    table_of,
)
from tests.router.tables import Clock

SLEEPER: dict[str, Any] = {"scale": {"min_units": 0, "max_units": 2}}


class World:
    """A platform whose steps are taken by hand, with an endpoint that sleeps."""

    def __init__(self, platform: Platform, cluster: FakeCluster, clock: Clock):
        platform.close()
        self.platform = platform
        self.cluster = cluster
        self.clock = clock
        self.endpoint_id = self.make("sleeper")

    def make(self, name: str, **fields: Any) -> str:
        endpoint = self.platform.endpoints.create("default", spec(name, **SLEEPER, **fields))
        self.platform.reconciler.step()
        self.seen(0, endpoint_id=endpoint.id)
        assert self.platform.endpoints.get("default", endpoint.id).state == "sleeping"
        return endpoint.id

    def seen(self, running: int, starting: int = 0, *, endpoint_id: str | None = None, **fields: Any) -> Endpoint:
        """The cluster shows so many units; returns the record after a step."""
        endpoint_id = endpoint_id or self.endpoint_id
        [key] = [key for key in self.cluster.applications if key[0] == endpoint_id]
        shown = {"status": "running", "reason": "", "phase": "", "cannot_start": False, "starting_since": None} | fields
        self.cluster.applications[key] = replace(
            self.cluster.applications[key],
            running_units=running,
            starting_units=starting,
            target_units=running + starting,
            **shown,
        )
        self.platform.reconciler.step()
        return self.platform.endpoints.get("default", endpoint_id)

    def start(self, *phases: tuple[str, float], endpoint_id: str | None = None) -> None:
        """A start in these phases, each of which takes so long; then the unit goes again."""
        for phase, taken_s in phases:
            self.seen(0, 1, endpoint_id=endpoint_id, phase=phase)
            self.clock.now += taken_s
        self.seen(1, endpoint_id=endpoint_id)
        self.seen(0, endpoint_id=endpoint_id)

    def route(self, endpoint_id: str | None = None) -> Route:
        return table_of(self.platform).routes[endpoint_id or self.endpoint_id]

    def expects(self, endpoint_id: str | None = None) -> dict[str, float] | None:
        """Seconds by stage."""
        wake = self.route(endpoint_id).wake
        return dict(wake.phases) if wake else None


def stages(**taken_s: float) -> dict[str, float]:
    return dict.fromkeys(STAGES, 0.0) | taken_s


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def world(open_platform: OpenPlatform, cluster: FakeCluster, clock: Clock) -> World:
    return World(open_platform(clock=clock), cluster, clock)


# By hand.


@pytest.fixture
def http(world: World) -> httpx.AsyncClient:
    return client_of(world.platform, admin_key(world.platform.settings))


async def test_a_sleeping_endpoint_is_woken(world: World, http: httpx.AsyncClient) -> None:
    answer = await http.post(f"/endpoints/{world.endpoint_id}:wake")
    assert (answer.status_code, answer.json()["state"]) == (202, "sleeping")
    assert [endpoint_id for endpoint_id, _ in world.cluster.woken] == [world.endpoint_id]
    assert world.seen(0, 1).state == "waking"


async def test_one_that_has_just_fallen_asleep_is_woken_though_its_record_does_not_say_so_yet(
    world: World, http: httpx.AsyncClient
) -> None:
    world.seen(1)
    answer = await http.post(f"/endpoints/{world.endpoint_id}:wake")
    assert (answer.status_code, answer.json()["state"]) == (202, "healthy")
    assert [endpoint_id for endpoint_id, _ in world.cluster.woken] == [world.endpoint_id]


async def test_one_that_never_sleeps_or_cannot_be_called_yet_is_left_alone(
    world: World, http: httpx.AsyncClient
) -> None:
    endless = world.platform.endpoints.create("default", spec("endless")).id
    for _ in range(2):
        world.platform.reconciler.step()
    assert world.platform.endpoints.get("default", endless).state == "healthy"
    new = world.platform.endpoints.create("default", spec("new", **SLEEPER)).id
    for endpoint_id in (endless, new):
        assert (await http.post(f"/endpoints/{endpoint_id}:wake")).status_code == 202
    assert world.cluster.woken == []


async def test_one_that_is_not_to_run_is_not_woken(world: World, http: httpx.AsyncClient) -> None:
    assert (await http.post(f"/endpoints/{world.endpoint_id}:stop")).status_code == 202
    answer = await http.post(f"/endpoints/{world.endpoint_id}:wake")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "conflict_error")
    assert "stopped" in answer.json()["error"]["message"]
    assert (await http.post("/endpoints/ep-9:wake")).status_code == 404
    assert world.cluster.woken == []


class Calls:
    """The handle of an application whose units do not run until the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.applications: list[str] = []
        self.runs = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.wake = SimpleNamespace(remote=lambda: self)
        self.handles_shut_down = 0
        monkeypatch.setattr(cluster_module, "DeploymentHandle", self._handle)

    def _handle(self, deployment: str, application: str) -> "Calls":
        assert deployment == "unit"
        self.applications.append(application)
        return self

    async def shutdown_async(self) -> None:
        self.handles_shut_down += 1

    def __await__(self) -> Generator[Any, None, Any]:
        return self.runs.wait().__await__()

    def cancel(self) -> None:
        self.cancelled.set()


async def nobody_waits(cluster: Cluster) -> None:
    async with asyncio.timeout(WAIT_S):
        while cluster._waking:  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0)


async def test_one_call_waits_for_a_unit_however_often_it_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    cluster = Cluster(asyncio.get_running_loop())
    for _ in range(3):
        await asyncio.to_thread(cluster.wake, "ep-1", "r1")
    await asyncio.to_thread(cluster.wake, "ep-2", "r1")
    assert calls.applications == ["ep-1.r-r1", "ep-2.r-r1"]
    calls.runs.set()
    await nobody_waits(cluster)
    await asyncio.to_thread(cluster.wake, "ep-1", "r1")
    assert calls.applications == ["ep-1.r-r1", "ep-2.r-r1", "ep-1.r-r1"]
    assert not calls.cancelled.is_set()
    await nobody_waits(cluster)
    assert calls.handles_shut_down == 3


async def test_a_call_that_waits_in_vain_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "WAKE_TIMEOUT_S", 0.0)
    calls = Calls(monkeypatch)
    cluster = Cluster(asyncio.get_running_loop())
    await asyncio.to_thread(cluster.wake, "ep-1", "r1")
    async with asyncio.timeout(WAIT_S):
        await calls.cancelled.wait()


# What routers are told.


@ONE_DATABASE
def test_routers_know_who_sleeps_and_how_far_a_start_is(world: World) -> None:
    assert (world.route().running_units, world.route().state, world.route().concurrency) == (0, "sleeping", 0)
    world.seen(0, 1, phase="waiting for 2 x H100, 1 free")
    assert (world.route().state, world.route().phase) == ("waking", "waiting for 2 x H100")
    world.seen(0, 1, phase="fetching weights: 0.1 of 4.7 GiB")
    number = table_of(world.platform).number
    world.seen(0, 1, phase="fetching weights: 0.2 of 4.7 GiB")
    assert world.route().phase == "fetching weights"
    assert table_of(world.platform).number == number
    world.seen(1)
    assert (world.route().running_units, world.route().phase) == (1, "")


@ONE_DATABASE
@pytest.mark.parametrize(
    ("fields", "running", "concurrency", "waiting"),
    [
        ({}, 1, 64, 256),
        ({}, 2, 128, 512),
        ({}, 0, 0, 256),
        ({"engine": {"max_num_seqs": 4}}, 2, 8, 32),
        ({"engine": {"max_num_seqs": 4}, "limits": {"max_queued": 3}}, 2, 8, 3),
    ],
)
def test_routers_know_how_many_may_wait(
    world: World, fields: dict[str, Any], running: int, concurrency: int, waiting: int
) -> None:
    endpoint_id = world.make("another", **fields)
    world.seen(running, endpoint_id=endpoint_id)
    route = world.route(endpoint_id)
    assert (route.concurrency, route.max_waiting) == (concurrency, waiting)


@ONE_DATABASE
def test_a_wake_that_fails_says_why_and_leaves_nobody_waiting(world: World) -> None:
    world.seen(0, 1)
    failed = world.seen(0, 1, status="unhealthy", reason="out of memory", cannot_start=True)
    assert (failed.state, failed.reason) == ("abnormal", "out of memory")
    assert (world.route().targets, world.route().state, world.route().reason) == ((), "abnormal", "out of memory")
    again = world.seen(0, 1, status="unhealthy", reason="out of memory", cannot_start=True)
    assert again.state == "abnormal"
    assert len(world.cluster.applications) == 1  # Serve goes on trying
    assert world.seen(1).state == "healthy"
    assert world.route().targets


@ONE_DATABASE
def test_one_that_gave_up_starting_can_be_woken_again(world: World) -> None:
    world.seen(0, 1)
    world.seen(0, 1, status="unhealthy", reason="out of memory", cannot_start=True)
    assert world.seen(0).state == "sleeping"
    assert world.route().targets


# Where there is no room.

NO_ROOM = "waiting for 1 x cpu-2, 0 free"


@ONE_DATABASE
def test_one_without_room_says_so_starts_when_there_is_some_and_disturbs_nobody(world: World) -> None:
    busy = world.make("busy")
    world.seen(1, endpoint_id=busy)

    def others() -> list[tuple[Endpoint, object]]:
        ids = (busy, world.endpoint_id)
        return [(world.platform.endpoints.get("default", id), world.route(id).targets) for id in ids]

    before = others()
    deploys = len(world.cluster.deploys)
    crowded = world.platform.endpoints.create("default", spec("crowded")).id
    world.platform.reconciler.step()
    for _ in range(3):
        waits = world.seen(0, 1, endpoint_id=crowded, status="starting", phase=NO_ROOM)
        assert (waits.state, waits.reason) == ("scheduling", f"the first unit is {NO_ROOM}")
        assert world.route(crowded).targets == ()
    starts = world.seen(0, 1, endpoint_id=crowded, status="starting", phase="checking weights")
    assert (starts.state, starts.reason) == ("scheduling", "the first unit is checking weights")
    runs = world.seen(1, endpoint_id=crowded)
    assert (runs.state, runs.reason, runs.running_units) == ("healthy", "", 1)
    assert world.route(crowded).targets
    assert others() == before
    assert len(world.cluster.deploys) == deploys + 1
    kinds = [event.kind for event in world.platform.registry.find(Event, subject=crowded)]
    assert kinds == ["created", "scheduling", "scheduling", "scheduling", "healthy"]


@ONE_DATABASE
def test_one_that_wakes_without_room_says_so_and_is_awake_when_there_is_some(world: World) -> None:
    waits = world.seen(0, 1, phase=NO_ROOM)
    assert (waits.state, waits.reason) == ("waking", f"a unit is {NO_ROOM}")
    assert world.route().targets  # whoever calls waits for the room
    assert world.seen(0, 1, phase="checking weights").reason == "a unit is checking weights"
    awake = world.seen(1)
    assert (awake.state, awake.reason, awake.running_units) == ("healthy", "", 1)


@ONE_DATABASE
def test_one_that_was_woken_in_vain_for_want_of_room_sleeps_again(world: World) -> None:
    world.seen(0, 1, phase=NO_ROOM)
    assert world.seen(0).state == "sleeping"
    assert world.route().targets


# How long it takes.


def test_starts_are_learned_stage_by_stage(world: World) -> None:
    assert world.expects() is None
    world.start(
        ("", 2.0), ("checking weights", 1.0), ("fetching weights: 1 of 2 GiB", 9.0), ("starting the engine", 4.0)
    )
    assert world.expects() == stages(place=2.0, fetch=10.0, load=4.0)
    world.start(("", 1.0), ("checking weights", 1.0), ("starting the engine", 4.0), ("ready", 0.5))
    world.start(("", 1.0), ("checking weights", 1.0), ("starting the engine", 6.0), ("ready", 0.5))
    assert world.expects() == stages(place=1.0, fetch=1.0, load=4.0, ready=0.5)


def test_the_last_few_count_and_they_outlive_the_control_plane(
    world: World, open_platform: OpenPlatform, cluster: FakeCluster, clock: Clock
) -> None:
    for taken_s in (100.0, 100.0, 100.0, *[7.0] * KEPT):
        world.start(("starting the engine", taken_s))
    assert world.expects() == stages(load=7.0)
    assert len(world.platform.registry.find(UnitStart)) == KEPT
    again = open_platform(clock=clock)
    again.close()
    wake = table_of(again).routes[world.endpoint_id].wake
    assert wake is not None
    assert dict(wake.phases) == stages(load=7.0)


@ONE_DATABASE
def test_one_that_has_never_started_is_thought_to_be_like_others_on_its_machine_type(world: World) -> None:
    world.start(("starting the engine", 5.0))
    other = world.make("another")
    assert world.expects(other) == stages(load=5.0)
    world.start(("starting the engine", 9.0), endpoint_id=other)
    assert world.expects(other) == stages(load=9.0)
    assert world.expects() == stages(load=5.0)
    change(world.platform, world.platform.endpoints.get("default", other), machine_type="gpu-1")
    world.platform.tables.publish()
    assert world.expects(other) == stages(load=9.0)  # until it has started there


@ONE_DATABASE
def test_the_process_counts_from_when_serve_began_it(world: World) -> None:
    begun_at = utc_now().timestamp() - 3.0
    world.seen(0, 1, starting_since=begun_at)
    world.clock.now += 1.0
    world.seen(0, 1, phase="starting the engine", starting_since=begun_at)
    world.seen(1)
    expected = world.expects()
    assert expected is not None
    assert expected["place"] == pytest.approx(4.0, abs=0.5)


@ONE_DATABASE
def test_what_did_not_come_to_its_end_says_nothing(world: World) -> None:
    world.seen(0, 1)
    world.clock.now += 50
    world.seen(0)  # nobody wants it any more
    world.seen(0, 1)
    world.clock.now += 50
    world.seen(0, 1, status="unhealthy", reason="no", cannot_start=True)
    world.seen(0)
    assert world.expects() is None


@ONE_DATABASE
def test_a_start_that_was_seen_from_its_middle_says_nothing(
    world: World, open_platform: OpenPlatform, clock: Clock
) -> None:
    world.seen(0, 1)
    clock.now += 50
    again = World.__new__(World)
    again.platform, again.cluster, again.clock = open_platform(clock=clock), world.cluster, clock
    again.platform.close()
    again.endpoint_id = world.endpoint_id
    clock.now += 50
    again.seen(1)
    assert again.expects() is None


@ONE_DATABASE
def test_further_units_are_not_waited_for(world: World) -> None:
    world.seen(1, 1)
    world.clock.now += 50
    world.seen(2)
    assert world.expects() is None


# What units say when they are done.


@ONE_DATABASE
def test_a_unit_that_has_started_is_ready_until_serve_says_so(world: World) -> None:
    phases = world.platform.phases
    assert phases.hear("ep-1", "r1", "a", "starting the engine")
    assert not phases.hear("ep-1", "r1", "a", "starting the engine")
    assert phases.started("ep-1", "r1", "a")
    assert phases.current() == {("ep-1", "r1"): READY}
    assert not phases.started("ep-1", "r1", "a")  # it reports again and again
    assert not phases.started("ep-1", "r1", "of long ago")
    phases.hear("ep-1", "r1", "b", "checking weights")
    assert phases.current() == {("ep-1", "r1"): "checking weights"}
    phases.started("ep-1", "r1", "b")
    world.clock.now += READY_KEPT_S
    assert phases.current() == {}  # it may sleep by now, and be about to start anew
    assert not phases.started("ep-1", "r1", "b")
