"""Makes the cluster what the records say, step by step; app/control_plane/loop.py calls it."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from app.control_plane.faults import no_fault
from app.control_plane.refusals import Refusals
from app.control_plane.services.events import event
from app.control_plane.services.models import Models
from app.control_plane.services.placements import Placements
from app.control_plane.services.routing_table import RoutingTables
from app.control_plane.services.scaling_journal import ScalingJournal
from app.control_plane.services.unit_phases import UnitPhases
from app.control_plane.services.unit_specs import UnitSpecs
from app.control_plane.services.unit_starts import UnitStarts
from app.core.lifecycle import Deploy, Plan, Remove, Seen, Verdict, plan
from app.core.records import Endpoint
from app.core.waiting import without_counts
from app.store.database import Registry
from app.unit.deployment import UnitSpec, build

LOOK_EVERY_S = 60.0
"""How often the object store is listed, at most, for what may have been published by hand."""
RETRY_FAILED_S = 60.0
RETRY_FAILED_MAX_S = 1800.0
CALLABLE = ("healthy", "sleeping")
SERVES = (*CALLABLE, "waking", "scaling")
"""States in which the wanted revision takes the traffic."""

log = logging.getLogger("ray.serve")


class ClusterPort(Protocol):
    """What the reconciler needs of a cluster; see app/control_plane/cluster.py."""

    def observe(self) -> list[Seen]: ...
    def deploy(self, endpoint_id: str, revision: str, application: Any) -> None: ...
    def remove(self, endpoint_id: str, revision: str) -> None: ...


class Reconciler:
    """Observe, plan, act, write down."""

    def __init__(
        self,
        registry: Registry,
        models: Models,
        units: UnitSpecs,
        tables: RoutingTables,
        phases: UnitPhases,
        starts: UnitStarts,
        placements: Placements,
        journal: ScalingJournal,
        cluster: ClusterPort,
        lock: threading.RLock,
        routers_timeout_s: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        at: Callable[[str], None] = no_fault,
    ):
        """`at` is told of each step of app/control_plane/faults.py."""
        self._registry = registry
        self._models = models
        self._units = units
        self._tables = tables
        self._phases = phases
        self._starts = starts
        self._placements = placements
        self._journal = journal
        self._cluster = cluster
        self._lock = lock
        self._routers_timeout_s = routers_timeout_s
        self._clock = clock
        self._now = now
        self._at = at
        self._failed: dict[tuple[str, str], tuple[float, float]] = {}
        """(endpoint ID, revision) -> when to try again (0: being tried), and how long that wait is."""
        self._carried_out: dict[tuple[str, str], int] = {}
        self._refusals = Refusals(clock)
        self._look_at = 0.0
        self._broken: list[Endpoint] = []
        """What had a problem in the last step."""
        self._retried = False
        """Whether something that failed was tried again since the object store was listed."""

    def step(self) -> bool:
        """One round; returns whether nothing is left to wait for."""
        self._look_in_store()
        endpoints = {endpoint.id: endpoint for endpoint in self._registry.find(Endpoint, deleted_at=None)}
        specs, problems, awaited = self._units.of_all(endpoints.values())
        self._broken = [endpoints[key] for key in problems]
        if problems:
            problems |= self._placements.review(endpoints[key] for key in problems)
        wanted = {key: self._units.revision(endpoints[key], spec) for key, spec in specs.items()}
        phases = self._phases.current()
        seen = [
            replace(app, phase=phases.get((app.endpoint_id, app.revision), app.phase))
            for app in self._cluster.observe()
        ]
        self._starts.observe(seen, endpoints)
        self._retry_failed(seen)
        refused = self._refusals.current(endpoints)
        result = plan(endpoints.values(), wanted, problems, seen, self._carried_out, refused, awaited)
        if result.actions:
            self._reach("planned", *(endpoints.get(action.endpoint_id) for action in result.actions))
        if any(isinstance(action, Remove) for action in result.actions):
            self._tables.publish()  # nobody is sent any more to what leaves
        running = {(app.endpoint_id, app.revision): app for app in seen if app.status != "leaving"}
        self._refusals.settle(refused, {action.endpoint_id for action in result.actions})
        failed: set[str] = set()
        for action in result.actions:
            endpoint, spec = endpoints.get(action.endpoint_id), specs.get(action.endpoint_id)
            if action.endpoint_id not in failed and not self._act(action, endpoint, spec, running):
                failed.add(action.endpoint_id)
        changed = self._write_down(result, endpoints)  # what changed may call for the next step
        waiting = ("scheduling", "upgrading", "scaling", "waking")
        moving = bool(result.actions) or changed
        return not moving and not any(
            verdict.state in waiting
            for endpoint_id, verdict in result.verdicts.items()
            if endpoint_id not in awaited  # the loop is woken when that is there
        )

    def _look_in_store(self) -> None:
        """What is missing may have been published meanwhile, and the weights of what failed may be others by now."""
        if self._clock() < self._look_at or not (self._broken or self._retried):
            return
        self._look_at = self._clock() + LOOK_EVERY_S
        wishes = ((endpoint.workspace, endpoint.spec) for endpoint in self._broken)
        if not self._retried and not any(self._models.is_missing(w, spec.model, spec.precision) for w, spec in wishes):
            return
        self._retried = False
        try:
            self._models.adopt()
        except Exception:  # without the object store what is known already still runs
            log.exception("published versions could not be looked up")

    def _act(
        self,
        action: Deploy | Remove,
        endpoint: Endpoint | None,
        spec: UnitSpec | None,
        running: Mapping[tuple[str, str], Seen],
    ) -> bool:
        """Take one step. One that fails (False) holds up no other endpoint, and is taken again after a while."""
        self._registry.check_turn()  # with another's turn the cluster is another's too
        begin, end = ("deploying", "deployed") if isinstance(action, Deploy) else ("removing", "removed")
        self._reach(begin, endpoint)
        try:
            if isinstance(action, Deploy):
                assert endpoint is not None
                assert spec is not None
                app = running.get((action.endpoint_id, action.revision))
                self._deploy(endpoint, action.revision, spec, app)
            else:
                self._cluster.remove(action.endpoint_id, action.revision)
        except Exception as error:
            log.exception("%s of %s failed", type(action).__name__, action.endpoint_id)
            if endpoint:
                self._refusals.add(endpoint, end, error)
            return False
        self._refusals.forget(action.endpoint_id)
        self._reach(end, endpoint)
        return True

    def _reach(self, step: str, *endpoints: Endpoint | None) -> None:
        self._at(step)
        for endpoint in endpoints:
            if endpoint:
                self._at(f"{step} {endpoint.spec.name}")

    def _retry_failed(self, seen: list[Seen]) -> None:
        """Take away an application that failed to start, so that it is deployed again: what it lacked may be there now.

        At first after RETRY_FAILED_S, then after twice as long each time.
        """
        for app in seen:
            if app.status != "failed":
                continue
            key = (app.endpoint_id, app.revision)
            due_at, wait_s = self._failed.get(key, (0.0, RETRY_FAILED_S / 2))
            if not due_at:
                wait_s = min(wait_s * 2, RETRY_FAILED_MAX_S)
                self._failed[key] = (self._clock() + wait_s, wait_s)
            elif self._clock() >= due_at:
                self._registry.check_turn()
                self._failed[key] = (0.0, wait_s)
                try:
                    self._cluster.remove(*key)
                except Exception:  # one endpoint never holds up another
                    log.exception("what failed of %s could not be taken away", app.endpoint_id)
                self._retried = True
        self._failed = {key: when for key, when in self._failed.items() if key in self._carried_out}

    def _deploy(self, endpoint: Endpoint, revision: str, spec: UnitSpec, app: Seen | None) -> None:
        """`app`: the revision's application, where there is one, which then changes in place."""
        rules = self._units.rules(endpoint, spec)
        application = build(
            spec,
            version=revision,
            placement=self._units.placement(endpoint, spec),
            rules=rules,
            drain_s=endpoint.spec.scale.drain_s,
            first=app is None,
        )
        self._cluster.deploy(endpoint.id, revision, application)
        self._carried_out[endpoint.id, revision] = endpoint.generation
        if app:
            self._journal.changed_in_place(app, rules, self._now())

    def _write_down(self, result: Plan, planned: Mapping[str, Endpoint]) -> bool:
        """Bring records and routing table up to date with what was seen, but never over a newer wish.

        The routers hear of it first: whoever reads that an endpoint is healthy can call it.
        Returns whether an endpoint that goes on changed.
        """
        for endpoint_id in result.gone:
            self._entomb(planned[endpoint_id])
        with self._lock:
            coming = self._updates(result, planned)
        if coming:
            self._reach("publishing", *coming.values())
        self._tables.publish(coming)
        if not coming:
            return False
        if any(endpoint.state in CALLABLE for endpoint in coming.values()):
            self._tables.wait_until_taken(self._routers_timeout_s)
        self._reach("published", *coming.values())
        with self._lock:
            self._put(list(self._updates(result, planned).values()), planned)
        self._tables.publish()  # a key that was issued meanwhile published without what was coming
        return True

    def _entomb(self, planned: Endpoint) -> None:
        """Nothing of it is left in the cluster; its record stays for a while, to be restored."""
        self._reach("entombing", planned)
        with self._lock:
            endpoint = self._registry.get(Endpoint, planned.id)
            if endpoint is None or endpoint.generation != planned.generation:
                return  # restored meanwhile
            rest = {"running_units": 0, "starting_units": 0, "target_units": 0, "revision": None, "reason": ""}
            done = {"deleted_at": self._now(), "observed_generation": endpoint.generation}
            note = event(endpoint.workspace, endpoint.id, "deleted", "nothing of it is left; it can be restored")
            self._registry.put(endpoint.model_copy(update=rest | done), note)
        self._phases.forget(planned.id)
        self._reach("entombed", planned)

    def _updates(self, result: Plan, planned: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """The endpoints whose records change, as they will be."""
        verdicts = result.verdicts | {key: v for key, v in result.resting.items() if key not in result.gone}
        news = [key for key, verdict in verdicts.items() if self._judged(planned[key], verdict) != planned[key]]
        fresh = self._registry.find(Endpoint, id=news) if news else []
        # One that was wished anew meanwhile is seen to in the next round.
        kept = [endpoint for endpoint in fresh if endpoint.generation == planned[endpoint.id].generation]
        return {endpoint.id: self._judged(endpoint, verdicts[endpoint.id]) for endpoint in kept}

    def _judged(self, endpoint: Endpoint, verdict: Verdict) -> Endpoint:
        begins = endpoint.running_since is None and verdict.state in SERVES
        return endpoint.model_copy(
            update={
                "state": verdict.state,
                "reason": verdict.reason,
                "revision": verdict.serving,
                "running_units": verdict.running_units,
                "starting_units": verdict.starting_units,
                "target_units": verdict.target_units,
                "observed_generation": endpoint.generation if verdict.done else endpoint.observed_generation,
                "running_since": self._now() if begins else endpoint.running_since,
            }
        )

    def _put(self, updates: Sequence[Endpoint], planned: Mapping[str, Endpoint]) -> None:
        """All in one transaction: a thousand of their own would take a minute."""
        notes = []
        for updated in updates:
            self._reach("writing", updated)
            before, happened = planned[updated.id], without_counts(updated.reason)
            if (updated.state, happened) != (before.state, without_counts(before.reason)):
                notes.append(event(updated.workspace, updated.id, updated.state, happened))
                log.info("endpoint %s is %s %s", updated.id, updated.state, happened)
        self._registry.put(*updates, *notes)
        for updated in updates:
            self._reach("written", updated)
