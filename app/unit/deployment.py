"""The model unit: one replica of an endpoint's Serve deployment, owner of one engine.

The replica itself is thin. It fetches weights, starts the engine process, admits calls, and passes them on;
tokens go from the engine straight to the router (app/core/frames.py).
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from ray import serve

from app.core.errors import EngineStartError
from app.core.lifecycle import application_name
from app.core.machines import driver_problem
from app.core.scaling import Rules
from app.core.specs import MOST_QUEUED
from app.loopback import keep_grpc_on_loopback
from app.settings import Settings
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from app.unit import engine_host
from app.unit.accelerators import driver_version
from app.unit.autoscaling import autoscaling_options
from app.unit.control_plane import ControlPlaneForUnit, this_unit
from app.unit.engine import EngineLaunch, EngineSettings, Simulation
from app.unit.engine_client import EngineClient
from app.unit.multi_machine import cluster_environment, own_placement_group
from app.unit.phases import STARTING_ENGINE, WARMING_UP, telling, weights_phase
from app.unit.watch import Watch
from app.unit.weight_cache import fetch, progress
from app.unit.work_in_hand import WorkInHand
from app.weights.folder import check_folder

HEALTH_CHECK_PERIOD_S = 2.0
HEALTH_CHECK_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 600.0
START_ATTEMPTS = 1
"""An engine that cannot start fails the same way twice; the reconciler tries again when something changed."""
ENGINE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
DEPLOYMENT = "unit"

log = logging.getLogger("ray.serve")


class UnitSpec(EngineSettings):
    """Everything a unit is told. Whatever is in here makes the revision: another value, another replica."""

    endpoint_id: str
    weights: str
    """The version's prefix in the object store."""
    digest: str
    """Of the version's manifest."""
    driver: str | None = None
    """The accelerator's driver version that the node must have."""
    cards: int = 0
    """Of each machine. A unit without any sees none, whatever its node has."""
    start_timeout_s: float = 1800.0
    simulation: Simulation | None = None
    """Set by tests only: run the simulated engine."""


class ModelUnit:
    """Serve's replica class. Calls arrive by handle, from routers only."""

    async def __init__(self, spec: dict[str, Any]):  # type: ignore[misc]  # Serve awaits it
        keep_grpc_on_loopback()
        self._spec = UnitSpec.model_validate(spec)
        settings = Settings.from_environ()
        self._cache_dir = settings.home / "cache"
        store = await asyncio.to_thread(open_store, settings)
        unit = this_unit()
        control_plane = ControlPlaneForUnit(unit)
        log_file = settings.log_dir / f"engine-{application_name(unit.endpoint_id, unit.revision)}-{unit.name}.log"
        self._watch = Watch(store, log_file, unit)
        try:
            async with telling(control_plane.phase, self._phase):
                self._launch = await asyncio.to_thread(self._prepare, settings, store, log_file)
                self._engine = await EngineClient.start(self._launch, settings.run_dir, self._spec.start_timeout_s)
        except BaseException as error:
            reason = EngineStartError.reason_in(str(error)) or type(error).__name__
            await self._watch.end(f"the unit cannot start: {reason}")
            raise
        finally:
            if hasattr(self, "_launch"):
                self._launch.warming_file.unlink(missing_ok=True)
        self._watch.engine_runs(self._engine, control_plane)
        self._work = WorkInHand(self._spec.max_model_len)
        self._leaving = asyncio.create_task(self._leave_when_engine_dies())

    def _prepare(self, settings: Settings, store: ObjectStore, log_file: Path) -> EngineLaunch:
        """Have the weights on this node and everything ready to launch. Raises EngineStartError."""
        spec = self._spec
        check_driver(spec)
        launch = launch_of(spec, log_file)
        if spec.simulation is None:
            engine_host.prepare(settings.run_dir)  # it imports while weights are fetched
            # Kept for the unit's life: while it runs, its files are not removed to make room.
            self._weights = fetch(
                store,
                spec.weights,
                self._cache_dir,
                digest=spec.digest,
                cache_bytes=settings.cache_bytes,
            )
            folder = self._weights.folder
            if problems := check_folder(folder):
                raise EngineStartError("; ".join(problems))
            places = {"model_dir": str(folder), "compiled_dir": str(self._weights.compiled)}
            launch = launch.model_copy(update=places)
        return launch

    def _phase(self) -> str:
        if hasattr(self, "_launch"):
            return WARMING_UP if self._launch.warming_file.exists() else STARTING_ENGINE
        return weights_phase(progress(self._cache_dir, self._spec.digest))

    async def _leave_when_engine_dies(self) -> None:
        """A unit without its engine is of no use: end at once, so that Serve starts another without three misses."""
        await self._engine.died.wait()
        log.error("the engine of %s died: %s", self._spec.endpoint_id, self._engine.cause)
        await asyncio.sleep(0.1)  # the calls in flight hear of it first
        try:
            await self._watch.end(f"the engine died: {self._engine.cause}")
        finally:
            os._exit(1)

    async def chat(self, token: bytes, router: str, request_id: str, body: bytes) -> str:
        """Answer an OpenAI chat request to the router at `router`; returns how it ended.

        Cancelled by the router when its caller leaves. Raises UnitLost when the engine died.
        """
        with self._work.call(len(body)):
            return await self._engine.chat(token, router, request_id, body)

    async def wake(self) -> None:
        """Nothing: that a call waits is what Serve starts a unit for."""
        with self._work.call():
            pass

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve a few times a second, for app/unit/scaling_policy.py."""
        return self._work.stats()

    async def check_health(self) -> None:
        """Called by Serve every HEALTH_CHECK_PERIOD_S."""
        await self._engine.check_health()

    async def __del__(self) -> None:
        """Serve calls this once the replica has drained, and also when it could not start."""
        if hasattr(self, "_leaving"):
            self._leaving.cancel()
            await self._watch.engine_ends()
            self._engine.close()
            await self._watch.end("the unit stops")
        if hasattr(self, "_weights"):
            self._weights.close()


def check_driver(spec: UnitSpec) -> None:
    """Raises EngineStartError on a node whose driver is not the one that the unit is to have."""
    if problem := driver_problem(spec.driver, driver_version() if spec.driver else None):
        raise EngineStartError(problem)


def launch_of(spec: UnitSpec, log_file: Path) -> EngineLaunch:
    """What this replica's engine is told, but for where its model lies.

    Raises EngineStartError for a unit over machines outside of any cluster.
    """
    group, environment = None, {name: os.environ[name] for name in ENGINE_VARIABLES if name in os.environ}
    if not spec.cards:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # Ray is about to leave the variable alone where it gives no cards
    if spec.machines > 1:
        group = own_placement_group()
        environment |= cluster_environment()
    settings = spec.model_dump(include=set(EngineSettings.model_fields))
    return EngineLaunch(
        kind="simulated" if spec.simulation else "vllm",
        endpoint_id=spec.endpoint_id,
        model_dir="",
        **(settings | {"threads": spec.threads or os.cpu_count()}),
        log_file=str(log_file),
        environment=environment,
        placement_group=group,
        simulation=spec.simulation or Simulation(),
    )


def build(
    spec: UnitSpec,
    *,
    version: str,
    placement: dict[str, Any],
    rules: Rules,
    drain_s: float = DRAIN_TIMEOUT_S,
    first: bool = True,
) -> Any:
    """The Serve application of one endpoint revision; `first` unless it is there already and changes in place.

    `placement`: the options by which Serve finds and sets aside its nodes, from app/core/unit_placement.py.
    With other `rules` or another `drain_s` the units that run go on.

    `version` decides whether Serve restarts replicas: Serve itself makes up a random one at each deploy, which would
    restart every unit, so it is set through the private `_internal` flag (pinned by tests/cluster/test_endpoints.py).
    """
    deployment = serve.deployment(ModelUnit, name=DEPLOYMENT).options(
        _internal=True,
        version=version,
        max_ongoing_requests=spec.max_num_seqs * 4,
        max_queued_requests=MOST_QUEUED,  # in each router's handle: it is the routers that bound queues
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=drain_s,
        max_constructor_retry_count=START_ATTEMPTS,
        **placement,
        **autoscaling_options(rules, spec.endpoint_id, version, first=first),
    )
    return deployment.bind(spec.model_dump(mode="json"))
