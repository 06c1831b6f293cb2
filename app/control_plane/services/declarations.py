"""The endpoints that a serve config declares: they are records too, and change with the file only."""

import logging
import threading
from collections.abc import Callable, Iterable

from app.control_plane.services.endpoint_wishes import EndpointWishes
from app.control_plane.services.events import event
from app.core.errors import PlatformError
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Event
from app.core.specs import DEFAULT_MACHINE_TYPE, EndpointSpec
from app.core.wishes import Machine
from app.store.database import Registry

log = logging.getLogger("ray.serve")


class Declarations:
    """Those of the first workspace. What this changes ends with `changed()`, which wakes the reconciler."""

    def __init__(self, registry: Registry, wishes: EndpointWishes, lock: threading.RLock, changed: Callable[[], None]):
        self._registry = registry
        self._wishes = wishes
        self._lock = lock
        self._changed = changed
        self._names: frozenset[str] = frozenset()

    def declare(self, specs: Iterable[EndpointSpec]) -> None:
        """Make the declared endpoints exactly these: add, change or remove, and leave the rest alone.

        One that was removed and comes back under its name while it can be restored is the same endpoint again.
        """
        wanted = {spec.name: spec for spec in specs}
        self._names = frozenset(wanted)
        if wanted:
            self._wishes.look()
        with self._lock:
            everything = self._registry.find(Endpoint, workspace=DEFAULT_WORKSPACE)
            gone = {e.spec.name: e for e in everything if e.state == "deleting" and e.managed_by == "serve_config"}
            for endpoint in everything:
                if endpoint.state == "deleting":
                    continue
                spec = wanted.pop(endpoint.spec.name, None)
                if endpoint.managed_by == "api":
                    self._tell_conflict(endpoint)
                elif spec is None:
                    reason = "removed from the serve config; its units drain and stop"
                    self._wishes.rest(endpoint, "deleting", reason)
                elif spec != endpoint.spec:
                    self._declare_anew(endpoint, spec, "changed", "changed in the serve config")
            for name, spec in wanted.items():
                if name in gone:
                    self._declare_anew(gone[name], spec, "restored", "the serve config declares it again")
                else:
                    self._wishes.add(DEFAULT_WORKSPACE, spec, self._place(spec), "serve_config")
        self._changed()

    def conflict(self, endpoint: Endpoint) -> str | None:
        """That the serve config declares an endpoint of this one's name, which therefore there is not."""
        ours = endpoint.workspace == DEFAULT_WORKSPACE and endpoint.managed_by == "api" and endpoint.state != "deleting"
        if not ours or endpoint.spec.name not in self._names:
            return None
        return (
            f"the serve config declares another {endpoint.spec.name}, which is not made while this one has the name; "
            "rename or delete one of them, and the control plane's next start makes what is declared"
        )

    def _tell_conflict(self, endpoint: Endpoint) -> None:
        """In the log at each start, and as an event once for each change of the endpoint."""
        reason = self.conflict(endpoint)
        if reason is None:
            return
        log.warning("endpoint %s: %s", endpoint.id, reason)
        changed_at = endpoint.updated_at or endpoint.created_at
        if not self._registry.find(Event, subject=endpoint.id, kind="conflict", since=changed_at, limit=1):
            self._registry.put(event(DEFAULT_WORKSPACE, endpoint.id, "conflict", reason))

    def _declare_anew(self, endpoint: Endpoint, spec: EndpointSpec, kind: str, message: str) -> None:
        machine = self._place(spec, endpoint)
        if endpoint.state in ("stopped", "deleting"):
            self._wishes.run(endpoint, spec, machine, kind, message)
        else:
            self._wishes.respecify(endpoint, spec, machine, kind, message)

    def _place(self, spec: EndpointSpec, current: Endpoint | None = None) -> Machine:
        """The machine type for a spec; what cannot be placed is recorded too, and the endpoint's reason says why."""
        try:
            return self._wishes.place(DEFAULT_WORKSPACE, spec, "serve_config", current)
        except PlatformError:
            return Machine(spec.machine_type or DEFAULT_MACHINE_TYPE)
