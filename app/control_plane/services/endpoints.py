"""Endpoints: the wishes. Carrying them out is the reconciler's work."""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from app.control_plane.services.events import event
from app.control_plane.services.models import Models
from app.core.errors import Conflict, InvalidField, NotFound
from app.core.names import new_id
from app.core.records import DEFAULT_WORKSPACE, Endpoint, ManagedBy
from app.core.specs import MACHINE_TYPES, EndpointSpec
from app.store.database import Registry


class Endpoints:
    """The endpoints of all workspaces. Every change ends with `changed()`, which wakes the reconciler."""

    def __init__(self, registry: Registry, models: Models, lock: threading.RLock, changed: Callable[[], None]):
        self._registry = registry
        self._models = models
        self._lock = lock
        self._changed = changed

    def create(self, workspace: str, spec: EndpointSpec) -> Endpoint:
        """Record the wish for an endpoint. Raises NotFound (model), Conflict (name taken), InvalidField."""
        check_machine_type(spec)
        self._models.adopt()
        self._models.version(workspace, spec.model, spec.precision)
        with self._lock:
            if self._named(workspace, spec.name):
                raise Conflict(f"There is an endpoint named {spec.name} already.", "name")
            endpoint = self._add(workspace, spec, "api")
        self._changed()
        return endpoint

    def find(self, workspace: str) -> list[Endpoint]:
        """A workspace's endpoints, oldest first."""
        return self._registry.find(Endpoint, workspace=workspace)

    def get(self, workspace: str, endpoint_id: str) -> Endpoint:
        """One endpoint. Raises NotFound."""
        endpoint = self._registry.get(Endpoint, endpoint_id)
        if endpoint is None or endpoint.workspace != workspace:
            raise NotFound(f"There is no endpoint {endpoint_id}.")
        return endpoint

    def delete(self, workspace: str, endpoint_id: str) -> Endpoint:
        """Wish it away. Raises NotFound, and Conflict for what a serve config declares."""
        with self._lock:
            endpoint = self.get(workspace, endpoint_id)
            if endpoint.managed_by == "serve_config":
                raise Conflict("This endpoint is declared in the serve config: remove it there and run 'serve deploy'.")
            endpoint = self._remove(endpoint)
        self._changed()
        return endpoint

    def declare(self, specs: Iterable[EndpointSpec]) -> None:
        """Make the endpoints of the serve config exactly these: add, change or remove, and leave the rest alone."""
        wanted = {spec.name: spec for spec in specs}
        with self._lock:
            for endpoint in self.find(DEFAULT_WORKSPACE):
                spec = wanted.pop(endpoint.spec.name, None) if endpoint.state != "deleting" else None
                if endpoint.managed_by == "api":
                    if spec:
                        reason = f"the serve config declares {spec.name}, which exists already; rename one of them"
                        self._registry.put(event(DEFAULT_WORKSPACE, endpoint.id, "conflict", reason))
                elif spec is None and endpoint.state != "deleting":
                    self._remove(endpoint)
                elif spec is not None and spec != endpoint.spec:
                    update = {"spec": spec, "generation": endpoint.generation + 1}
                    note = event(DEFAULT_WORKSPACE, endpoint.id, "changed", "changed in the serve config")
                    self._registry.put(endpoint.model_copy(update=update), note)
            for spec in wanted.values():
                self._add(DEFAULT_WORKSPACE, spec, "serve_config")
        self._changed()

    def _named(self, workspace: str, name: str) -> bool:
        return any(e.spec.name == name and e.state != "deleting" for e in self.find(workspace))

    def _add(self, workspace: str, spec: EndpointSpec, managed_by: ManagedBy) -> Endpoint:
        now = datetime.now(UTC)
        endpoint = Endpoint(id=new_id("ep", now), created_at=now, workspace=workspace, spec=spec, managed_by=managed_by)
        self._registry.put(endpoint, event(workspace, endpoint.id, "created", f"created as {spec.name}"))
        return endpoint

    def _remove(self, endpoint: Endpoint) -> Endpoint:
        gone = endpoint.model_copy(update={"state": "deleting", "reason": "", "generation": endpoint.generation + 1})
        self._registry.put(gone, event(endpoint.workspace, endpoint.id, "deleting", "its units drain and stop"))
        return gone


def check_machine_type(spec: EndpointSpec) -> None:
    """Raises InvalidField for a machine type that there is not."""
    if spec.machine_type not in MACHINE_TYPES:
        allowed = ", ".join(MACHINE_TYPES)
        raise InvalidField(f"machine_type is unknown; allowed: {allowed}.", "machine_type")
