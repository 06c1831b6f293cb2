"""A whole platform in virtual time: the real control plane, policy and bounds; played are Serve, units and callers.

What happens is decided by the seed alone.
"""

import contextlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ray.experimental import internal_kv

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.platform import ENDPOINTS_BUSY_S, ENDPOINTS_IDLE_S, Platform
from app.core.errors import PlatformError
from app.core.lifecycle import Seen
from app.core.records import DEFAULT_WORKSPACE, ScalingDecision
from app.core.routing import RoutingTable
from app.core.specs import MachineType
from app.unit.engine import Simulation
from tests.control_plane.platforms import FakeCluster, publish_model, settings_in, spec
from tests.simulated.events import Events
from tests.simulated.routers import Router
from tests.simulated.serve import Serve
from tests.simulated.traffic import DAY_S, EDGE, HOUR_S, Arrival, arrivals
from tests.simulated.units import Request

MONDAY = datetime(2026, 2, 2, tzinfo=UTC).timestamp()
NAME = "virtual"
STEP, MOST_UNITS, CONCURRENCY, MAX_NUM_SEQS = 2, 12, 4, 8
IDLE_S, DOWN_S = 300, 60
ENGINE = Simulation(start_s=20.0, first_token_s=0.4, between_tokens_s=0.03)
MACHINE = MachineType(name="pairs", step=STEP, cpus=1)
ENDPOINT = spec(
    NAME,
    machine_type=MACHINE.name,
    scale={
        "min_units": 0, "max_units": MOST_UNITS, "target_concurrency": CONCURRENCY, "idle_to_zero_s": IDLE_S,
        "down_after_s": DOWN_S,
    },
    engine={"max_num_seqs": MAX_NUM_SEQS},
)  # fmt: skip
ROUTERS = 2
TABLE_S = 0.02
"""Until a router has a table that was published."""
FOLLOW_UPS = 2
"""Steps of the control plane after one that is not settled and before anything else changes."""
END_S = 600.0
"""After the last hour: what is under way ends."""


class VirtualCluster(FakeCluster):
    """What the control plane has of Ray."""

    def __init__(self, events: Events, draws: random.Random):
        super().__init__()
        self._events = events
        self._draws = draws
        self.running: dict[tuple[str, str], Serve] = {}
        self.changed = lambda: None

    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None:
        key = endpoint_id, revision
        assert key not in self.running  # nothing here changes in place
        self.running[key] = Serve(self._events, self._draws, application, self._tell)

    def _tell(self) -> None:
        self.changed()

    def observe(self) -> list[Seen]:
        return [serve.seen(*key) for key, serve in self.running.items()]

    # Ray's key-value store, as the policy reaches it from inside the controller.

    def internal_kv_put(self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, timeout_s: float) -> int:
        self.notes[key.decode()] = value
        self.changed()
        return 1

    def internal_kv_keys(self, prefix: bytes, namespace: bytes, timeout_s: float) -> list[bytes]:
        return [key.encode() for key in self.read_notes(prefix.decode())]

    def internal_kv_del(self, key: bytes, by_prefix: bool, namespace: bytes, timeout_s: float) -> int:
        raise AssertionError("the journal is collected long before it is full")


class World:
    """An endpoint, its callers, and what became of them."""

    def __init__(self, platform: Platform, cluster: VirtualCluster, events: Events, seed: int):
        self.platform = platform
        self.events = events
        self._cluster = cluster
        self._draws = random.Random(f"callers {seed}")
        self.requests: list[Request] = []
        """All that ever came, in order."""
        self._settled, self._follow_ups, self._planned = True, 0, False
        self._stepped_at_s = events.now_s
        [self.endpoint] = platform.endpoints.find(DEFAULT_WORKSPACE)
        [self.serve] = cluster.running.values()
        self._routers = [Router(events, f"router-{n}", self.endpoint.id, self.serve) for n in range(ROUTERS)]
        self._step()
        cluster.changed = self._touch

    def run(self, seed: int, days: range) -> None:
        """Live through those days, until all that was under way has ended."""
        self._expected = arrivals(seed, days)
        self._next()
        for day in days:
            self.events.at(MONDAY + day * DAY_S + EDGE[0] * HOUR_S, self._at_the_edge, None)
        self.events.run(MONDAY + days.stop * DAY_S + END_S)

    def journal(self) -> list[ScalingDecision]:
        """Each change of the target as it was written down."""
        return list(self.platform.scaling_journal.find(self.endpoint.id))

    # Callers.

    def _next(self) -> None:
        arrival = next(self._expected, None)
        if arrival:
            self.events.at(MONDAY + arrival.at_s, self._arrive, arrival)

    def _arrive(self, arrival: Arrival) -> None:
        self._next()
        self._begin(arrival.tokens, arrival.body_bytes, arrival.waits)

    def _begin(self, tokens: int, body_bytes: int, waits: bool = True, then: Any = None) -> None:
        number = len(self.requests)
        request = Request(number, self.events.now_s, tokens, body_bytes, waits=waits, then=then)
        self.requests.append(request)
        self._send(request)

    def _send(self, request: Request) -> None:
        self._draws.choice(self._routers).ask(request, self._ended)

    def _ended(self, request: Request, error: PlatformError | None) -> None:
        if error is None:
            if request.then:
                request.then(request)
            return
        assert error.status in (429, 503), error
        assert error.retry_after_s
        request.told_s.append(error.retry_after_s)
        request.full += error.status == 429
        self.events.after(error.retry_after_s, self._send, request)

    def _at_the_edge(self, answered: Request | None) -> None:
        """Somebody whose next request comes as long after the last answer as makes an endpoint sleep, about."""
        if answered is None:
            self._begin(50, 1000, then=self._at_the_edge)
            return
        at_s = self.events.now_s + IDLE_S + self._draws.uniform(-1.5, 3.5)
        if (at_s - MONDAY) % DAY_S < EDGE[1] * HOUR_S:
            self.events.at(at_s, lambda: self._begin(50, 1000, then=self._at_the_edge))

    # The control plane: its loop steps when it would and anything has changed since.

    def _touch(self) -> None:
        self._follow_ups = 0
        self._plan_step()

    def _plan_step(self) -> None:
        if not self._planned:
            self._planned = True
            period_s = ENDPOINTS_IDLE_S if self._settled else ENDPOINTS_BUSY_S
            since_s = self.events.now_s - self._stepped_at_s
            self.events.after(period_s - since_s % period_s, self._step)

    def _step(self) -> None:
        self._planned, self._stepped_at_s = False, self.events.now_s
        self.platform.scaling_journal.collect()
        self._settled = self.platform.reconciler.step()
        for router in self._routers:
            if table := self.platform.tables.wait(router.table.number, 0, router.name):
                known = RoutingTable.model_validate_json(table)
                self.events.after(TABLE_S, router.take, known)
        if not self._settled and self._follow_ups < FOLLOW_UPS:
            self._follow_ups += 1
            self._plan_step()
        elif self._cluster.notes:
            self._plan_step()


@contextlib.contextmanager
def lived(home: Path, seed: int, days: range) -> Iterator[World]:
    """A world on an empty HOME, after these days (Monday is 0) in it."""
    events = Events(MONDAY + days.start * DAY_S - 60.0)
    cluster = VirtualCluster(events, random.Random(f"timing {seed}"))
    settings = settings_in(home)
    publish_model(settings)
    args = ControlPlaneArgs(endpoints=[ENDPOINT], machine_types=[MACHINE], simulations={NAME: ENGINE})
    platform = Platform(settings, cluster, args, routers_timeout_s=0, clock=events.clock, now=events.wall)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(internal_kv, "internal_kv_get_gcs_client", lambda: cluster)
        try:
            platform.open()
            for loop in platform.loops:
                loop.stop()  # steps are taken by hand
            world = World(platform, cluster, events, seed)
            world.run(seed, days)
            yield world
        finally:
            platform.close()
