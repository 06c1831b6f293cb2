"""Makes the cluster what the records say, step by step; app/control_plane/loop.py calls it."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from app import __version__
from app.control_plane.services.endpoints import check_machine_type
from app.control_plane.services.events import event
from app.control_plane.services.models import Models
from app.control_plane.services.routing_table import RoutingTables
from app.core.errors import PlatformError
from app.core.lifecycle import Deploy, Plan, Seen, Verdict, plan, revision_of
from app.core.records import Endpoint
from app.core.specs import MACHINE_TYPES, EndpointSpec
from app.store.database import Registry
from app.unit.deployment import UnitSpec, build
from app.unit.engine import Simulation

RETRY_FAILED_S = 60.0
RETRY_FAILED_MAX_S = 1800.0
EVERY_ENDPOINT = "*"

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
        tables: RoutingTables,
        cluster: ClusterPort,
        lock: threading.RLock,
        simulations: Mapping[str, Simulation],
        routers_timeout_s: float,
        clock: Callable[[], float],
    ):
        self._registry = registry
        self._models = models
        self._tables = tables
        self._cluster = cluster
        self._lock = lock
        self._simulations = simulations
        self._routers_timeout_s = routers_timeout_s
        self._clock = clock
        self._failed: dict[tuple[str, str], tuple[float, float]] = {}
        """(endpoint ID, revision) -> when to try again (0: being tried), and how long that wait is."""
        self._carried_out: dict[tuple[str, str], int] = {}

    def step(self) -> bool:
        """One round; returns whether nothing is left to wait for."""
        endpoints = {endpoint.id: endpoint for endpoint in self._registry.find(Endpoint)}
        specs: dict[str, UnitSpec] = {}
        problems: dict[str, str] = {}
        for endpoint in endpoints.values():
            try:
                specs[endpoint.id] = self._unit_spec(endpoint)
            except PlatformError as error:
                problems[endpoint.id] = error.message
        if problems:
            self._models.adopt()  # what is missing may have been published meanwhile
        wanted = {endpoint_id: _revision(spec) for endpoint_id, spec in specs.items()}
        seen = self._cluster.observe()
        self._retry_failed(seen)
        result = plan(endpoints.values(), wanted, problems, seen, self._carried_out)
        for action in result.actions:
            try:
                if isinstance(action, Deploy):
                    self._deploy(endpoints[action.endpoint_id], action.revision, specs[action.endpoint_id])
                else:
                    self._cluster.remove(action.endpoint_id, action.revision)
            except Exception:  # one endpoint never holds up another
                log.exception("%s of %s failed", type(action).__name__, action.endpoint_id)
        self._write_down(result, endpoints)
        waiting = ("scheduling", "upgrading", "scaling")
        return not result.actions and not any(verdict.state in waiting for verdict in result.verdicts.values())

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
                self._failed[key] = (0.0, wait_s)
                self._cluster.remove(*key)
        self._failed = {key: when for key, when in self._failed.items() if key in self._carried_out}

    def _deploy(self, endpoint: Endpoint, revision: str, spec: UnitSpec) -> None:
        machine = MACHINE_TYPES[endpoint.spec.machine_type]
        resources: dict[str, Any] = {"num_cpus": machine.cpus, "num_gpus": machine.accelerator_count}
        if machine.accelerator:
            resources["accelerator_type"] = machine.accelerator
        scale = endpoint.spec.scale
        application = build(
            spec, version=revision, resources=resources, min_units=scale.min_units, max_units=scale.max_units
        )
        self._cluster.deploy(endpoint.id, revision, application)
        self._carried_out[endpoint.id, revision] = endpoint.generation

    def _unit_spec(self, endpoint: Endpoint) -> UnitSpec:
        """What the endpoint's units should be told. Raises PlatformError while its model cannot be served."""
        spec: EndpointSpec = endpoint.spec
        check_machine_type(spec)  # a serve config may name any
        version = self._models.version(endpoint.workspace, spec.model, spec.precision)
        machine = MACHINE_TYPES[spec.machine_type]
        engine = spec.engine
        return UnitSpec(
            endpoint_id=endpoint.id,
            weights=version.prefix,
            digest=version.digest,
            max_model_len=spec.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            prefix_caching=engine.prefix_caching,
            enforce_eager=machine.enforce_eager if engine.enforce_eager is None else engine.enforce_eager,
            kv_cache_bytes=engine.kv_cache_bytes or machine.kv_cache_bytes,
            threads=engine.threads or machine.engine_threads,
            simulation=self._simulations.get(spec.name, self._simulations.get(EVERY_ENDPOINT)),
        )

    def _write_down(self, result: Plan, planned: Mapping[str, Endpoint]) -> None:
        """Bring records and routing table up to date with what was seen, but never over a newer wish.

        The routers hear of it first: whoever reads that an endpoint is healthy can call it.
        """
        with self._lock:
            coming = self._updates(result, planned)
            for endpoint_id in result.gone:
                if endpoint := self._registry.get(Endpoint, endpoint_id):
                    self._registry.put(event(endpoint.workspace, endpoint.id, "deleted", "nothing of it is left"))
                    self._registry.delete(endpoint)
        self._tables.publish(coming)
        if any(endpoint.state == "healthy" for endpoint in coming.values()):
            self._tables.wait_until_taken(self._routers_timeout_s)
        with self._lock:
            for updated in self._updates(result, planned).values():
                self._put(updated, planned[updated.id])
        self._tables.publish()  # a key that was issued meanwhile published without what was coming

    def _updates(self, result: Plan, planned: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """The endpoints whose records change, as they will be."""
        updates = {}
        for endpoint_id, verdict in result.verdicts.items():
            endpoint = self._registry.get(Endpoint, endpoint_id)
            if endpoint is None or endpoint.generation != planned[endpoint_id].generation:
                continue  # wished anew meanwhile: the next round sees to it
            updated = _judged(endpoint, verdict)
            if updated != endpoint:
                updates[endpoint_id] = updated
        return updates

    def _put(self, updated: Endpoint, before: Endpoint) -> None:
        notes = []
        if (updated.state, updated.reason) != (before.state, before.reason):
            notes.append(event(updated.workspace, updated.id, updated.state, updated.reason))
            log.info("endpoint %s is %s %s", updated.id, updated.state, updated.reason)
        self._registry.put(updated, *notes)


def _judged(endpoint: Endpoint, verdict: Verdict) -> Endpoint:
    return endpoint.model_copy(
        update={
            "state": verdict.state,
            "reason": verdict.reason,
            "revision": verdict.serving,
            "running_units": verdict.running_units,
            "observed_generation": endpoint.generation if verdict.done else endpoint.observed_generation,
        }
    )


def _revision(spec: UnitSpec) -> str:
    return revision_of(__version__, spec.model_dump_json())
