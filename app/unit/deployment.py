"""The model unit: one replica of an endpoint's Serve deployment, owner of one engine.

The replica itself is thin. It fetches weights, starts the engine process, admits calls, and passes them on;
tokens go from the engine straight to the router (app/core/frames.py).
"""

import asyncio
import logging
import os
from typing import Any

from ray import serve

from app.core.errors import EngineStartError
from app.loopback import keep_grpc_on_loopback
from app.settings import Settings
from app.store.objects import open_store
from app.unit.engine import EngineLaunch, EngineSettings, Simulation
from app.unit.engine_client import EngineClient
from app.unit.weight_cache import fetch
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
    start_timeout_s: float = 1800.0
    simulation: Simulation | None = None
    """Set by tests only: run the simulated engine."""


class ModelUnit:
    """Serve's replica class. Calls arrive by handle, from routers only."""

    async def __init__(self, spec: dict[str, Any]):  # type: ignore[misc]  # Serve awaits it
        keep_grpc_on_loopback()
        self._spec = UnitSpec.model_validate(spec)
        settings = Settings.from_environ()
        self._engine = await EngineClient.start(
            await asyncio.to_thread(self._prepare, settings), settings.run_dir, self._spec.start_timeout_s
        )
        self._watch = asyncio.create_task(self._leave_when_engine_dies())

    def _prepare(self, settings: Settings) -> EngineLaunch:
        """Have the weights on this node and everything ready to launch. Raises EngineStartError."""
        spec = self._spec
        model_dir = ""
        if spec.simulation is None:
            # Kept for the unit's life: while it runs, its files are not removed to make room.
            self._weights = fetch(
                open_store(settings), spec.weights, settings.home / "cache", cache_bytes=settings.cache_bytes
            )
            folder = self._weights.folder
            if problems := check_folder(folder):
                raise EngineStartError("; ".join(problems))
            model_dir = str(folder)
        replica = serve.get_replica_context()
        return EngineLaunch(
            kind="simulated" if spec.simulation else "vllm",
            endpoint_id=spec.endpoint_id,
            model_dir=model_dir,
            **(spec.model_dump(include=set(EngineSettings.model_fields)) | {"threads": spec.threads or os.cpu_count()}),
            log_file=str(settings.log_dir / f"engine-{replica.app_name}-{replica.replica_tag[-8:]}.log"),
            environment={name: os.environ[name] for name in ENGINE_VARIABLES if name in os.environ},
            simulation=spec.simulation or Simulation(),
        )

    async def _leave_when_engine_dies(self) -> None:
        """A unit without its engine is of no use: end at once, so that Serve starts another without three misses."""
        await self._engine.died.wait()
        log.error("the engine of %s died: %s", self._spec.endpoint_id, self._engine.cause)
        await asyncio.sleep(0.1)  # the calls in flight hear of it first
        os._exit(1)

    async def chat(self, token: bytes, router: str, request_id: str, body: bytes) -> str:
        """Answer an OpenAI chat request to the router at `router`; returns how it ended.

        Cancelled by the router when its caller leaves. Raises UnitLost when the engine died.
        """
        return await self._engine.chat(token, router, request_id, body)

    async def check_health(self) -> None:
        """Called by Serve every HEALTH_CHECK_PERIOD_S."""
        await self._engine.check_health()

    async def __del__(self) -> None:
        """Serve calls this once the replica has drained, and also when it could not start."""
        if hasattr(self, "_watch"):
            self._watch.cancel()
            self._engine.close()
        if hasattr(self, "_weights"):
            self._weights.close()


def build(spec: UnitSpec, *, version: str, resources: dict[str, Any], min_units: int, max_units: int) -> Any:
    """The Serve application of one endpoint revision.

    `version` decides whether Serve restarts replicas: Serve itself makes up a random one at each deploy, which would
    restart every unit, so it is set through the private `_internal` flag (pinned by tests/cluster/test_endpoints.py).
    """
    scale: dict[str, Any] = (
        {"num_replicas": min_units}
        if min_units == max_units
        else {"autoscaling_config": {"min_replicas": min_units, "max_replicas": max_units}}
    )
    deployment = serve.deployment(ModelUnit, name=DEPLOYMENT).options(
        _internal=True,
        version=version,
        max_ongoing_requests=spec.max_num_seqs * 4,
        max_queued_requests=spec.max_num_seqs * 8,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=DRAIN_TIMEOUT_S,
        max_constructor_retry_count=START_ATTEMPTS,
        ray_actor_options=resources,
        **scale,
    )
    return deployment.bind(spec.model_dump(mode="json"))
