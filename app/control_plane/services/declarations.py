"""The endpoints that a serve config declares: they are records too, and change with the file only."""

import threading
from collections.abc import Callable, Iterable

from app.control_plane.services.endpoint_wishes import EndpointWishes
from app.control_plane.services.events import event
from app.core.errors import PlatformError
from app.core.records import DEFAULT_WORKSPACE, Endpoint
from app.core.specs import DEFAULT_MACHINE_TYPE, EndpointSpec
from app.core.wishes import Machine
from app.store.database import Registry


class Declarations:
    """Those of the first workspace. What this changes ends with `changed()`, which wakes the reconciler."""

    def __init__(self, registry: Registry, wishes: EndpointWishes, lock: threading.RLock, changed: Callable[[], None]):
        self._registry = registry
        self._wishes = wishes
        self._lock = lock
        self._changed = changed

    def declare(self, specs: Iterable[EndpointSpec]) -> None:
        """Make the declared endpoints exactly these: add, change or remove, and leave the rest alone.

        One that was removed and comes back under its name while it can be restored is the same endpoint again.
        """
        wanted = {spec.name: spec for spec in specs}
        with self._lock:
            everything = self._registry.find(Endpoint, workspace=DEFAULT_WORKSPACE)
            gone = {e.spec.name: e for e in everything if e.state == "deleting" and e.managed_by == "serve_config"}
            for endpoint in everything:
                if endpoint.state == "deleting":
                    continue
                spec = wanted.pop(endpoint.spec.name, None)
                if endpoint.managed_by == "api":
                    if spec:
                        reason = f"the serve config declares {spec.name}, which exists already; rename one of them"
                        self._registry.put(event(DEFAULT_WORKSPACE, endpoint.id, "conflict", reason))
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
