"""Writing down what is wished of an endpoint, whoever wishes it: a caller, the serve config, a stop rule."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Literal

from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models
from app.core.errors import InvalidField, NotFound
from app.core.names import new_id
from app.core.records import Endpoint, ManagedBy, Model
from app.core.specs import EndpointSpec
from app.core.wishes import Machine, respecified, resting, running
from app.store.database import Registry


class EndpointWishes:
    """Every method but `look` is called with the lock held, for a record that was read under it."""

    def __init__(
        self,
        registry: Registry,
        models: Models,
        machines: Machines,
        changed: Callable[[], None],
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._models = models
        self._machines = machines
        self._changed = changed
        self._now = now

    def look(self) -> None:
        """Before the lock is taken in order to `place`: hear what the cluster has, which may take seconds."""
        self._machines.look()

    def place(
        self,
        workspace: str,
        spec: EndpointSpec,
        managed_by: ManagedBy,
        current: Endpoint | None = None,
        model: Model | None = None,
    ) -> Machine:
        """The machine type for a spec, and why that one where the platform chose; `current`: the endpoint as it is.

        `model`: the spec's, where it is not recorded yet.
        Whoever writes a serve config also sets the quotas: they hold for what is asked for over the API.
        Raises InvalidField for a machine type that there is not or that cannot serve this, Conflict for the quota.
        """
        model, bound = model or self._model(workspace, spec), managed_by == "api"
        return self._machines.place(workspace, spec, model, current, bound=bound)

    def misplaced(self, endpoint: Endpoint) -> str:
        """Why the endpoint's machine type cannot serve it; empty when, as far as is known, it can."""
        model = self._model(endpoint.workspace, endpoint.spec)
        try:
            self._machines.fit(endpoint.spec, model, self._machines.get(endpoint.machine_type))
        except InvalidField as error:
            return error.message
        return ""

    def add(
        self,
        workspace: str,
        spec: EndpointSpec,
        machine: Machine,
        managed_by: ManagedBy,
        proof: Proof = no_proof,
        reason: str = "",
    ) -> Endpoint:
        """A new endpoint; `reason`: what is to be said of it first."""
        now = self._now()
        endpoint = Endpoint(
            id=new_id("ep", now),
            created_at=now,
            updated_at=now,
            workspace=workspace,
            spec=spec,
            managed_by=managed_by,
            reason=reason,
            machine_type=machine.machine_type,
            placement=machine.placement,
        )
        note = event(workspace, endpoint.id, "created", f"created as {spec.name}{reason and f'; {reason}'}")
        self._registry.put(endpoint, note, *proof(endpoint.id))
        return endpoint

    def respecify(self, endpoint: Endpoint, spec: EndpointSpec, machine: Machine, kind: str, message: str) -> Endpoint:
        """It goes on with another spec."""
        changed = respecified(endpoint, spec, machine, self._now())
        self._registry.put(changed, event(endpoint.workspace, endpoint.id, kind, message))
        return changed

    def run(self, endpoint: Endpoint, spec: EndpointSpec, machine: Machine, kind: str, message: str) -> Endpoint:
        """It begins again."""
        begun = running(endpoint, spec, machine, self._now())
        self._registry.put(begun, event(endpoint.workspace, endpoint.id, kind, message))
        return begun

    def rest(self, endpoint: Endpoint, state: Literal["stopped", "deleting"], reason: str) -> Endpoint:
        """Its units are drained and removed; the reconciler is woken for it."""
        rests = resting(endpoint, state, reason, self._now())
        self._registry.put(rests, event(endpoint.workspace, endpoint.id, state, reason))
        self._changed()
        return rests

    def _model(self, workspace: str, spec: EndpointSpec) -> Model | None:
        with suppress(NotFound):  # in a serve config it may be named before it is there
            return self._models.in_precision(self._models.get(workspace, spec.model), spec.precision)
        return None
