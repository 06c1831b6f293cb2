"""The control plane's services, put together once."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from app.catalog.catalog import Catalog
from app.control_plane.job_runner import JobPort, JobRunner
from app.control_plane.loop import Loop
from app.control_plane.reconciler import ClusterPort, Reconciler
from app.control_plane.services.endpoints import Endpoints
from app.control_plane.services.jobs import Jobs
from app.control_plane.services.keys import Keys
from app.control_plane.services.models import Models
from app.control_plane.services.routing_table import RoutingTables
from app.core.records import DEFAULT_WORKSPACE, Workspace
from app.core.specs import EndpointSpec
from app.settings import Settings
from app.store.database import Registry
from app.store.objects import open_store
from app.unit.engine import Simulation

ENDPOINTS_BUSY_S, ENDPOINTS_IDLE_S = 0.25, 3.0
"""Between two steps while anything is on its way, and else; every wish over the API is looked at at once."""
JOBS_BUSY_S, JOBS_IDLE_S = 0.25, 60.0
ROUTERS_TIMEOUT_S = 3.0
"""How long "healthy" waits for the routers to know; a router that is away must not hold it up for ever."""


class RayPort(ClusterPort, JobPort, Protocol):
    """All that the control plane needs of Ray."""


class Platform:
    """Registry, services and the reconciler; `open` before use."""

    def __init__(
        self,
        settings: Settings,
        cluster: RayPort,
        simulations: Mapping[str, Simulation],
        routers_timeout_s: float = ROUTERS_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        lock = threading.RLock()
        store = open_store(settings)
        self.settings = settings
        self.endpoint_loop = Loop("reconciler", ENDPOINTS_IDLE_S, ENDPOINTS_BUSY_S)
        self.job_loop = Loop("job runner", JOBS_IDLE_S, JOBS_BUSY_S)
        self.catalog = Catalog.load(settings.catalog_file)
        self.registry = Registry(settings.database)
        self.jobs = Jobs(self.registry, store, lock, self.job_loop.nudge)
        self.models = Models(self.registry, store, self.catalog, self.jobs, lock, self.job_loop.nudge)
        self.tables = RoutingTables(self.registry, store)
        self.reconciler = Reconciler(
            self.registry, self.models, self.tables, cluster, lock, simulations, routers_timeout_s, clock
        )
        self.job_runner = JobRunner(
            self.registry, store, self.jobs, self.models, cluster, lock, self.endpoint_loop.nudge, clock
        )
        self.keys = Keys(self.registry, lock)
        self.endpoints = Endpoints(self.registry, self.models, lock, self.endpoint_loop.nudge)

    def open(self, declared: Iterable[EndpointSpec]) -> None:
        """Bring the registry up to date, take over what the serve config declares, and begin to reconcile."""
        self.settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.registry.migrate()
        if self.registry.get(Workspace, DEFAULT_WORKSPACE) is None:
            now = datetime.now(UTC)
            self.registry.put(Workspace(id=DEFAULT_WORKSPACE, created_at=now, name=DEFAULT_WORKSPACE))
        self.keys.ensure_admin(self.settings)
        self.models.adopt()
        self.models.sweep()
        self.tables.load()
        self.endpoints.declare(declared)
        self.reconciler.step()  # so that nobody reads states from before this start
        self.endpoint_loop.start(self.reconciler.step)
        self.job_loop.start(self.job_runner.step)

    @property
    def loops(self) -> tuple[Loop, Loop]:
        """Without either of them the control plane is of no use."""
        return self.endpoint_loop, self.job_loop

    def close(self) -> None:
        """Stop reconciling."""
        for loop in self.loops:
            loop.stop()
        self.registry.close()
