"""The control plane's services, put together once."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from app.control_plane.reconciler import ClusterPort, Reconciler
from app.control_plane.services.endpoints import Endpoints
from app.control_plane.services.keys import Keys
from app.control_plane.services.models import Models
from app.control_plane.services.routing_table import RoutingTables
from app.core.records import DEFAULT_WORKSPACE, Workspace
from app.core.specs import EndpointSpec
from app.settings import Settings
from app.store.database import Registry
from app.store.objects import open_store
from app.unit.engine import Simulation

ROUTERS_TIMEOUT_S = 3.0
"""How long "healthy" waits for the routers to know; a router that is away must not hold it up for ever."""


class Platform:
    """Registry, services and the reconciler; `open` before use."""

    def __init__(
        self,
        settings: Settings,
        cluster: ClusterPort,
        simulations: Mapping[str, Simulation],
        routers_timeout_s: float = ROUTERS_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        lock = threading.RLock()
        store = open_store(settings)
        self._settings = settings
        self.registry = Registry(settings.database)
        self.models = Models(self.registry, store)
        self.tables = RoutingTables(self.registry, store)
        self.reconciler = Reconciler(
            self.registry, self.models, self.tables, cluster, lock, simulations, routers_timeout_s, clock
        )
        self.keys = Keys(self.registry, lock)
        self.endpoints = Endpoints(self.registry, self.models, lock, self.reconciler.nudge)

    def open(self, declared: Iterable[EndpointSpec]) -> None:
        """Bring the registry up to date, take over what the serve config declares, and begin to reconcile."""
        self._settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.registry.migrate()
        if self.registry.get(Workspace, DEFAULT_WORKSPACE) is None:
            now = datetime.now(UTC)
            self.registry.put(Workspace(id=DEFAULT_WORKSPACE, created_at=now, name=DEFAULT_WORKSPACE))
        self.keys.ensure_admin(self._settings)
        self.models.adopt()
        self.tables.load()
        self.endpoints.declare(declared)
        self.reconciler.step()  # so that nobody reads states from before this start
        self.reconciler.start()

    def close(self) -> None:
        """Stop reconciling."""
        self.reconciler.stop()
        self.registry.close()
