"""How long units take to start, stage by stage: noted while the reconciler watches them, told to those who wait."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.core.lifecycle import Seen
from app.core.names import new_id
from app.core.records import Endpoint, UnitStart
from app.core.waiting import without_counts
from app.core.wakes import STAGES, Stage, WakeEstimate, stage_of, typical
from app.store.database import Registry

KEPT = 8
"""Starts of each endpoint that estimates are made of."""


@dataclass
class _Start:
    """One that is under way: of the first unit of an application that has none."""

    stage: Stage
    since: float
    phase: str
    phases: dict[Stage, float]
    whole: bool
    """Whether it has been watched from its beginning."""


class UnitStarts:
    """The starts of each endpoint, those before and the one under way. Safe to share between threads."""

    def __init__(self, registry: Registry, clock: Callable[[], float], now: Callable[[], datetime]):
        self._registry = registry
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], _Start] = {}
        self._known: dict[str, list[UnitStart]] = {}
        """Endpoint ID -> its last starts, the newest last."""
        self._of_endpoints: dict[str, WakeEstimate | None] = {}
        self._of_machine_types: dict[str, WakeEstimate | None] = {}
        """For endpoints that have never started."""
        self._watching = False

    def load(self) -> None:
        """Take over what an earlier control plane has noted."""
        with self._lock:
            for start in self._registry.find(UnitStart):
                self._known.setdefault(start.endpoint_id, []).append(start)
            self._estimate()

    def observe(self, seen: Iterable[Seen], endpoints: Mapping[str, Endpoint]) -> None:
        """What the cluster says now. A start that has come to its end is written down."""
        present = {(app.endpoint_id, app.revision): app for app in seen if app.status != "leaving"}
        for key, app in present.items():
            if app.running_units == 0 and app.starting_units:
                self._watch(key, app)
            elif key in self._under_way:
                self._end(key, app, endpoints.get(app.endpoint_id))
        with self._lock:
            self._under_way = {key: start for key, start in self._under_way.items() if key in present}
            for endpoint_id in self._known.keys() - endpoints.keys():  # its starts leave the registry with it
                del self._known[endpoint_id]
                self._of_endpoints.pop(endpoint_id, None)
        self._watching = True

    def phase(self, endpoint_id: str) -> str:
        """What the endpoint's first unit does now, without what changes from second to second; empty: nothing known."""
        with self._lock:
            found = [start.phase for (owner, _), start in self._under_way.items() if owner == endpoint_id]
        return found[-1] if found else ""

    def estimate(self, endpoint: Endpoint) -> WakeEstimate | None:
        """How long its next start will take; None while nobody knows."""
        return self._of_endpoints.get(endpoint.id) or self._of_machine_types.get(endpoint.machine_type)

    def _watch(self, key: tuple[str, str], app: Seen) -> None:
        now, stage = self._clock(), stage_of(app.phase)
        with self._lock:
            start = self._under_way.get(key)
            if start is None:
                begun = now - max(0.0, self._now().timestamp() - app.starting_since) if app.starting_since else now
                start = self._under_way[key] = _Start("place", begun, "", {}, whole=self._watching)
            if STAGES.index(stage) > STAGES.index(start.stage):
                start.phases[start.stage] = now - start.since
                start.stage, start.since = stage, now
            start.phase = without_counts(app.phase)

    def _end(self, key: tuple[str, str], app: Seen, endpoint: Endpoint | None) -> None:
        with self._lock:
            start = self._under_way.pop(key)
        if endpoint is None or not app.running_units or not start.whole:
            return
        start.phases[start.stage] = self._clock() - start.since
        note = UnitStart(
            id=new_id("start", self._now(), 10),
            created_at=self._now(),
            endpoint_id=endpoint.id,
            machine_type=endpoint.machine_type,
            phases={stage: round(taken_s, 3) for stage, taken_s in start.phases.items()},
        )
        self._registry.put(note)
        with self._lock:
            kept = [*self._known.get(endpoint.id, ()), note]
            self._known[endpoint.id] = kept[-KEPT:]
            self._estimate()
        self._registry.delete(*kept[:-KEPT])

    def _estimate(self) -> None:
        machine_types: dict[str, list[UnitStart]] = {}
        for endpoint_id, starts in self._known.items():
            machine_type = starts[-1].machine_type  # those on another say nothing of the next
            alike = [start for start in starts if start.machine_type == machine_type]
            self._of_endpoints[endpoint_id] = typical(start.phases for start in alike)
            machine_types.setdefault(machine_type, []).extend(alike)
        for machine_type, starts in machine_types.items():
            latest = sorted(starts, key=lambda start: start.created_at)[-KEPT:]
            self._of_machine_types[machine_type] = typical(start.phases for start in latest)
