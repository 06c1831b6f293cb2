"""The control plane's services, put together once."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app.catalog.catalog import Catalog
from app.control_plane.args import ControlPlaneArgs
from app.control_plane.faults import die_once
from app.control_plane.job_runner import JobPort, JobRunner
from app.control_plane.long_runs import LongRuns
from app.control_plane.loop import Loop
from app.control_plane.reconciler import ClusterPort, Reconciler
from app.control_plane.retention import Retention, retained_job_logs, retained_logs, retained_records
from app.control_plane.services.audit import Audit
from app.control_plane.services.bounds import Bounds
from app.control_plane.services.compression import Compression
from app.control_plane.services.declarations import Declarations
from app.control_plane.services.deploys import Deploys
from app.control_plane.services.endpoint_wishes import EndpointWishes
from app.control_plane.services.endpoints import Endpoints
from app.control_plane.services.estimates import Estimates
from app.control_plane.services.events import Events
from app.control_plane.services.families import Families
from app.control_plane.services.figures import Figures
from app.control_plane.services.following import Following
from app.control_plane.services.idempotency import Idempotency
from app.control_plane.services.job_logs import JobLogs, LogPort
from app.control_plane.services.jobs import Jobs
from app.control_plane.services.keys import Keys
from app.control_plane.services.log_places import LogPlaces
from app.control_plane.services.logs import LogStore
from app.control_plane.services.machines import Machines
from app.control_plane.services.members import Members
from app.control_plane.services.models import Models
from app.control_plane.services.pace import Pace
from app.control_plane.services.placements import Placements
from app.control_plane.services.preparation import Preparation
from app.control_plane.services.routing_table import RoutingTables
from app.control_plane.services.scaling_journal import NotesPort, ScalingJournal
from app.control_plane.services.tiers import Tiers
from app.control_plane.services.tombstones import Tombstones
from app.control_plane.services.tuning import Tuning
from app.control_plane.services.unit_phases import UnitPhases
from app.control_plane.services.unit_specs import UnitSpecs
from app.control_plane.services.unit_starts import UnitStarts
from app.control_plane.services.usage import Usage
from app.control_plane.services.wakes import WakePort, Wakes
from app.control_plane.services.workspaces import Workspaces
from app.control_plane.stop_rules import StopRules
from app.core.errors import Superseded
from app.core.stop_rules import IdleRule
from app.core.waiting import Room
from app.settings import Settings
from app.store.database import Registry
from app.store.objects import open_store

ENDPOINTS_BUSY_S, ENDPOINTS_IDLE_S = 0.25, 3.0
"""Between two steps while anything is on its way, and else; every wish over the API is looked at at once."""
JOBS_BUSY_S, JOBS_IDLE_S = 0.25, 60.0
RETENTION_BUSY_S, RETENTION_IDLE_S = 1.0, 3600.0
SNAPSHOT_BUSY_S, SNAPSHOT_IDLE_S = 5.0, 3600.0
STOP_RULES_S = 30.0
FIGURES_S = 10.0
"""How late a minute's figures may be written down."""
ROUTERS_TIMEOUT_S = 3.0
"""How long "healthy" waits for the routers to know; a router that is away must not hold it up for ever."""
GRANTS_TIMEOUT_S = 1.0
"""How long the answer about a key or a member waits for the routers to know."""

log = logging.getLogger("ray.serve")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class RayPort(ClusterPort, JobPort, LogPort, NotesPort, WakePort, Protocol):
    """All that the control plane needs of Ray."""

    def rooms(self) -> Sequence[Room]: ...


class Platform:
    """Registry, services and the reconciler; `open` before use."""

    def __init__(
        self,
        settings: Settings,
        cluster: RayPort,
        args: ControlPlaneArgs,
        routers_timeout_s: float = ROUTERS_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ):
        lock = self.lock = threading.RLock()
        """Held by whoever reads a record and writes it back."""
        store = open_store(settings)
        self.settings = settings
        self.args = args
        self.endpoint_loop = Loop("reconciler", ENDPOINTS_IDLE_S, ENDPOINTS_BUSY_S)
        self.job_loop = Loop("job runner", JOBS_IDLE_S, JOBS_BUSY_S)
        self.retention_loop = Loop("retention", RETENTION_IDLE_S, RETENTION_BUSY_S)
        self.snapshot_loop = Loop("snapshot", SNAPSHOT_IDLE_S, SNAPSHOT_BUSY_S)
        self.stop_rules_loop = Loop("stop rules", STOP_RULES_S, STOP_RULES_S)
        self.figures_loop = Loop("figures", FIGURES_S, FIGURES_S)
        self.catalog = Catalog.load(settings.catalog_file)
        self.registry = Registry(settings.database)
        bounds = Bounds(
            self.registry,
            endpoints=args.endpoints_per_workspace,
            models=args.models_per_workspace,
            unfinished_jobs=args.unfinished_jobs_per_workspace,
        )
        self.jobs = Jobs(self.registry, store, lock, self.job_loop.nudge, now)
        self.machines = Machines(self.registry, self.catalog, args.machine_types, cluster.rooms, clock)
        self.job_logs = JobLogs(self.registry, store, cluster, settings)
        self.models = Models(self.registry, store, self.catalog, self.jobs, bounds, lock, self.job_loop.nudge, clock)
        self.preparation = Preparation(
            self.registry, store, self.models, self.jobs, bounds, self.machines, lock, self.job_loop.nudge
        )
        self.compression = Compression(
            self.registry,
            store,
            self.models,
            self.jobs,
            bounds,
            self.machines,
            lock,
            self.job_loop.nudge,
        )
        self.tuning = Tuning(
            self.registry,
            store,
            self.models,
            self.jobs,
            bounds,
            self.machines,
            self.compression,
            lock,
            self.job_loop.nudge,
        )
        self.estimates = Estimates(self.registry, self.catalog, self.models, self.machines)
        self.starts = UnitStarts(self.registry, clock, now)
        families = Families(self.registry, self.catalog)
        self.tables = RoutingTables(
            self.registry, store, starts=self.starts, families=families, unsaved=self.snapshot_loop.nudge
        )
        self.phases = UnitPhases(clock)
        self.units = UnitSpecs(self.models, self.machines, families, args.simulations)
        self.wishes = EndpointWishes(self.registry, self.models, self.machines, self.endpoint_loop.nudge, now)
        self.scaling_journal = ScalingJournal(self.registry, cluster, lock, clock)
        self.reconciler = Reconciler(
            self.registry,
            self.models,
            self.units,
            self.tables,
            self.phases,
            self.starts,
            Placements(self.registry, self.wishes, lock, self.endpoint_loop.nudge),
            self.scaling_journal,
            cluster,
            lock,
            routers_timeout_s,
            clock,
            now,
            die_once(args.die_at, settings.home),
        )
        self.job_runner = JobRunner(
            self.registry,
            store,
            self.jobs,
            self.job_logs,
            self.models,
            self.preparation,
            self.tuning,
            self.compression,
            LongRuns(self.registry, self.jobs, self.machines, args.reserved_for_endpoints, lock, clock, now),
            cluster,
            lock,
            self.endpoint_loop.nudge,
            clock,
        )
        self._routers_timeout_s = routers_timeout_s
        self.members = Members(self.registry, lock, self._grants_changed, now)
        self.keys = Keys(self.registry, self.members, lock, self._grants_changed, now, args.keys_per_role)
        self.workspaces = Workspaces(self.registry, self.keys, self.jobs, lock, self._grants_changed, now)
        self.events = Events(self.registry)
        self.audit = Audit(self.registry)
        self.pace = Pace(args.changes_per_key_s, clock)
        self.idempotency = Idempotency(self.registry, now)
        self.endpoints = Endpoints(
            self.registry, self.models, self.wishes, self.units, bounds, lock, self.endpoint_loop.nudge, now
        )
        self.wakes = Wakes(self.endpoints, cluster, self.endpoint_loop.nudge)
        self.declarations = Declarations(self.registry, self.wishes, lock, self.endpoint_loop.nudge)
        self.deploys = Deploys(settings, self.catalog, self.machines, self.models, self.endpoints)
        kept = timedelta(days=args.tombstones_kept_days)
        self.tombstones = Tombstones(self.registry, self.endpoints, lock, kept, now)
        idle = IdleRule(timedelta(days=args.idle_delete_days))
        self.figures = Figures(self.registry, lock, self.keys.used, now)
        self.usage = Usage(self.registry, now)
        self.tiers = Tiers(self.models, self.machines)
        self.stop_rules = StopRules(
            self.registry, self.wishes, self.tombstones, lock, idle, self.figures.last_request, now
        )
        self.logs = LogStore(store, now)
        self.log_places = LogPlaces()
        self.following = Following(now)
        self.retention = Retention(
            [
                *retained_records(self.registry, args.events_kept_days),
                retained_logs(self.logs),
                retained_job_logs(self.job_logs),
            ],
            now,
        )

    def open(self) -> None:
        """Bring the registry up to date, take over what the serve config declares, and begin to reconcile."""
        self.settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.registry.migrate()
        turn = self.registry.take_turn()  # whoever was the control plane before cannot write any more
        log.info("turn %d to write the registry begins; another control plane that still uses it ends", turn)
        self.workspaces.ensure_default()
        self.keys.ensure_admin(self.settings)
        self.models.adopt()
        self.tables.load(turn)
        self.starts.load()
        self.figures.load()
        self.stop_rules.begin()
        self.machines.check_quotas()
        self.declarations.declare(self.args.endpoints)
        self._reconcile_first()
        self.endpoint_loop.start(self._in_turn(self._reconcile))
        self.job_loop.start(self._in_turn(self.job_runner.step))
        self.retention_loop.start(self._in_turn(self.retention.step))
        self.snapshot_loop.start(self._in_turn(self.tables.save))
        self.stop_rules_loop.start(self._in_turn(self.stop_rules.step))
        self.figures_loop.start(self._in_turn(self.figures.step))

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Without any of them the control plane is of no use."""
        return (
            self.endpoint_loop,
            self.job_loop,
            self.retention_loop,
            self.snapshot_loop,
            self.stop_rules_loop,
            self.figures_loop,
        )

    def close(self) -> None:
        """Stop reconciling."""
        for loop in self.loops:
            loop.stop()
        self.following.close()
        self.figures.close()
        self.registry.close()

    def _reconcile(self) -> bool:
        self.scaling_journal.collect()
        return self.reconciler.step()

    def _reconcile_first(self) -> None:
        """So that nobody reads states from before this start; what fails now, the loop tries again."""
        try:
            self.reconciler.step()
        except Superseded:
            raise
        except Exception:
            log.exception("the first step of the reconciler failed")

    def _grants_changed(self) -> None:
        """Tell the routers. What changed is written down already, so whatever fails here is no answer to a caller."""
        try:
            self.tables.publish()
            self.tables.wait_until_taken(min(GRANTS_TIMEOUT_S, self._routers_timeout_s))
        except Exception:
            log.exception("the routers could not be told of changed keys; the reconciler tells them")
            self.endpoint_loop.nudge()

    def _in_turn(self, step: Callable[[], bool]) -> Callable[[], bool]:
        """The step, which notices also while it has nothing to write that another has taken over."""

        def checked() -> bool:
            self.registry.check_turn()
            return step()

        return checked
