"""Endpoints: the wishes. Carrying them out is the reconciler's work."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.control_plane.services.actor import current_act
from app.control_plane.services.audit import audit_entry
from app.control_plane.services.bounds import Bounds
from app.control_plane.services.endpoint_wishes import EndpointWishes
from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.models import Models
from app.control_plane.services.unit_specs import UnitSpecs
from app.core.errors import Conflict, NotFound, NotReady, PlatformError
from app.core.etags import etag_of, require_match
from app.core.patches import Effect, changed_fields, concerns, effect_of, patched
from app.core.records import Endpoint, Model, Record
from app.core.specs import EndpointSpec
from app.core.wishes import Machine, respecified
from app.store.database import Registry

PLACED_BY = ("model", "precision", "machine_type", "max_model_len", "engine", "scale")
"""Fields that may call for another machine type, or for more units of it."""
_ACTION_LIMIT = 256


@dataclass(frozen=True)
class Change:
    """What a PATCH did."""

    endpoint: Endpoint
    effect: Effect
    reason: str


class Endpoints:
    """The endpoints of all workspaces. Every change ends with `changed()`, which wakes the reconciler.

    What a serve config declares changes there: whatever else would change it raises Conflict.
    """

    def __init__(
        self,
        registry: Registry,
        models: Models,
        wishes: EndpointWishes,
        units: UnitSpecs,
        bounds: Bounds,
        lock: threading.RLock,
        changed: Callable[[], None],
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._models = models
        self._wishes = wishes
        self._units = units
        self._bounds = bounds
        self._lock = lock
        self._changed = changed
        self._now = now

    def create(
        self,
        workspace: str,
        spec: EndpointSpec,
        proof: Proof = no_proof,
        new_model: Model | None = None,
        reason: str = "",
    ) -> Endpoint:
        """Record the wish for an endpoint; its model may still be preparing.

        `new_model`: the model, where it is to be made for this endpoint: only when nothing is in the endpoint's way.
        `reason`: what is to be said of the endpoint first.
        Raises NotFound (model), Conflict (name taken, quota, a model that failed), InvalidField.
        """
        if new_model is None:
            self._models.adopt_missing(workspace, spec.model, spec.precision)
        self._wishes.look()
        with self._lock:  # from here on the endpoint holds the model
            if new_model is None:
                self._require_model(workspace, spec)
            self._require_free(workspace, spec.name)
            self._bounds.new_endpoint(workspace)
            machine = self._wishes.place(workspace, spec, "api", model=new_model)
            if new_model is not None:
                self._models.add(new_model)
            proof = self._with_acceptance(workspace, spec, proof)
            endpoint = self._wishes.add(workspace, spec, machine, "api", proof, reason)
        self._changed()
        return endpoint

    def find(
        self,
        workspace: str,
        *,
        model: str | None = None,
        name: str | None = None,
        deleted: bool = False,
        after: str | None = None,
        limit: int | None = None,
        **equals: Any,
    ) -> list[Endpoint]:
        """A workspace's endpoints, oldest first; or those that are deleted and can be restored.

        `model`: by ID or name; `after`, `limit` and `equals` are as for Registry.find. Raises ValueError as that does.
        """
        if not deleted:
            equals["deleted_at"] = None
        if model is None and name is None and not deleted:
            return self._registry.find(Endpoint, workspace=workspace, after=after, limit=limit, **equals)
        models = self._spellings(workspace, model) if model else ()
        found = [
            endpoint
            for endpoint in self._registry.find(Endpoint, workspace=workspace, **equals)
            if (endpoint.deleted_at is not None) is deleted
            and (model is None or endpoint.spec.model in models)
            and (name is None or endpoint.spec.name == name)
        ]
        start = [endpoint.id for endpoint in found].index(after) + 1 if after is not None else 0
        return found[start:][:limit]

    def get(self, workspace: str, endpoint_id: str, *, deleted: bool = False) -> Endpoint:
        """One endpoint; with `deleted` also one that is deleted and can be restored. Raises NotFound."""
        endpoint = self._registry.get(Endpoint, endpoint_id)
        if endpoint is None or endpoint.workspace != workspace or (endpoint.deleted_at and not deleted):
            raise NotFound(f"There is no endpoint {endpoint_id}.")
        return endpoint

    def patch(
        self, workspace: str, endpoint_id: str, changes: Mapping[str, Any], if_match: str | None = None
    ) -> Change:
        """Change the fields that are named, also of one that can be restored: it may need it for that.

        Raises NotFound, Conflict, InvalidField.
        """
        if {"model", "precision"} & changes.keys():
            self._adopt_missing(workspace, endpoint_id, changes)
        if set(PLACED_BY) & changes.keys():
            self._wishes.look()
        with self._lock:
            before = self._changeable(workspace, endpoint_id, if_match, deleted=True)
            if before.state == "deleting" and not before.deleted_at:
                raise Conflict("This endpoint is deleting; wait until it is deleted, or restore it first.")
            spec = patched(before.spec, changes)
            said = spec.accept_quality and "accept_quality" in changes
            if not said and concerns(changed_fields(before.spec, spec), "model", "precision"):
                spec = spec.model_copy(update={"accept_quality": False})  # which was said of another version
            fields = changed_fields(before.spec, spec)
            if not fields:
                return Change(before, "none", "it is so already")
            if spec.name != before.spec.name:
                self._require_free(workspace, spec.name)
            accepts: Sequence[Record] = ()
            if concerns(fields, "model", "precision", "accept_quality"):
                self._require_model(workspace, spec)
                accepts = self._acceptance(before.workspace, before.id, spec) if said else ()
            machine = Machine(before.machine_type, before.placement)
            if concerns(fields, *PLACED_BY):
                machine = self._wishes.place(workspace, spec, before.managed_by, before)
            after = respecified(before, spec, machine, self._now())
            if after.deleted_at:  # there is nothing to carry out
                after = after.model_copy(update={"observed_generation": after.generation})
            restarts = self._revision(before) != self._revision(after)
            rests = "deleted" if after.deleted_at else "stopped" if after.state == "stopped" else None
            effect, reason = effect_of(fields, rests=rests, restarts=restarts)
            note = event(workspace, before.id, "changed", f"{', '.join(fields)}: {effect} ({reason})")
            self._registry.put(after, note, *accepts)
        self._changed()
        return Change(after, effect, reason)

    def stop(self, workspace: str, endpoint_id: str, if_match: str | None = None) -> Endpoint:
        """Drain and remove its units; the record stays. Raises NotFound, Conflict. Done already: nothing happens."""
        with self._lock:
            endpoint = self._changeable(workspace, endpoint_id, if_match)
            if endpoint.state == "deleting":
                raise Conflict("This endpoint is deleting.")
            if endpoint.state != "stopped":
                endpoint = self._wishes.rest(endpoint, "stopped", "stopped by a caller")
        return endpoint

    def start(self, workspace: str, endpoint_id: str, if_match: str | None = None) -> Endpoint:
        """Serve again. Raises NotFound, Conflict, InvalidField. One that is not stopped stays as it is.

        Also for an endpoint that a serve config declares: that it runs is what the file says.
        """
        self._wishes.look()
        with self._lock:
            endpoint = self.get(workspace, endpoint_id)
            require_match(if_match, etag_of(endpoint))
            if endpoint.state == "deleting":
                raise Conflict("This endpoint is deleting; restore it.")
            if endpoint.state == "stopped":
                machine = self._wishes.place(workspace, endpoint.spec, endpoint.managed_by, endpoint)
                endpoint = self._wishes.run(endpoint, endpoint.spec, machine, "started", "started by a caller")
        self._changed()
        return endpoint

    def delete(self, workspace: str, endpoint_id: str, if_match: str | None = None) -> Endpoint:
        """Wish it away; it can be restored for a while. Raises NotFound, Conflict. Done already: nothing happens."""
        with self._lock:
            endpoint = self._changeable(workspace, endpoint_id, if_match)
            if endpoint.state != "deleting":
                endpoint = self._wishes.rest(endpoint, "deleting", "its units drain and stop")
        return endpoint

    def restore(self, workspace: str, endpoint_id: str, if_match: str | None = None) -> Endpoint:
        """Bring back what was deleted, with its ID, settings and keys. Raises NotFound, Conflict, InvalidField."""
        self._wishes.look()
        with self._lock:
            endpoint = self.get(workspace, endpoint_id, deleted=True)
            require_match(if_match, etag_of(endpoint))
            if endpoint.state != "deleting":
                raise Conflict(f"This endpoint is {endpoint.state}; only a deleted one can be restored.")
            _require_ours(endpoint)
            self._require_free(workspace, endpoint.spec.name)
            if endpoint.deleted_at:
                self._bounds.restored_endpoint(workspace)
            machine = self._wishes.place(workspace, endpoint.spec, endpoint.managed_by, endpoint)
            endpoint = self._wishes.run(endpoint, endpoint.spec, machine, "restored", "it is deployed again")
        self._changed()
        return endpoint

    def _adopt_missing(self, workspace: str, endpoint_id: str, changes: Mapping[str, Any]) -> None:
        """Look for the model that a patch asks for; what is wrong with the patch is told later."""
        with suppress(PlatformError):
            spec = patched(self.get(workspace, endpoint_id, deleted=True).spec, changes)
            self._models.adopt_missing(workspace, spec.model, spec.precision)

    def _require_model(self, workspace: str, spec: EndpointSpec) -> None:
        """Raises NotFound, and Conflict for a model that failed or goes away; one that is being made is waited for."""
        with suppress(NotReady):
            self._models.version(workspace, spec.model, spec.precision, accept_quality=spec.accept_quality)

    def _with_acceptance(self, workspace: str, spec: EndpointSpec, proof: Proof) -> Proof:
        """What is put together with a new endpoint: also who said that its version's quality does not matter."""
        if not spec.accept_quality:
            return proof
        return lambda endpoint_id: (*proof(endpoint_id), *self._acceptance(workspace, endpoint_id, spec))

    def _acceptance(self, workspace: str, endpoint_id: str, spec: EndpointSpec) -> Sequence[Record]:
        """That somebody says so, for the audit and as an event."""
        which, told = f"{spec.model}:{spec.precision}", "what it has cost in quality is not known yet"
        with suppress(NotFound):
            model = self._models.get(workspace, spec.model)
            version = self._models.of_precision(model, spec.precision)
            which = version.id
            if version.state != "creating":
                told = version.reason or "it has not failed its quality gate"
        note = event(workspace, endpoint_id, "accept_quality", f"{which} is served whatever it has cost: {told}")
        act = current_act()
        return (note, audit_entry(act, f"accept_quality {which}"[:_ACTION_LIMIT], endpoint_id, 202)) if act else (note,)

    def _spellings(self, workspace: str, model: str) -> set[str]:
        """What specs may call a model."""
        try:
            found = self._models.get(workspace, model)
        except NotFound:
            return {model}  # it may be gone, or not there yet
        return {found.id, found.name}

    def _changeable(self, workspace: str, endpoint_id: str, if_match: str | None, *, deleted: bool = False) -> Endpoint:
        endpoint = self.get(workspace, endpoint_id, deleted=deleted)
        require_match(if_match, etag_of(endpoint))
        _require_ours(endpoint)
        return endpoint

    def _require_free(self, workspace: str, name: str) -> None:
        """Raises Conflict for a name that another endpoint has."""
        if any(e.spec.name == name and e.state != "deleting" for e in self.find(workspace)):
            raise Conflict(f"There is an endpoint named {name} already.", "name")

    def _revision(self, endpoint: Endpoint) -> str | None:
        try:
            return self._units.revision(endpoint, self._units.of(endpoint))
        except PlatformError:
            return None


def _require_ours(endpoint: Endpoint) -> None:
    """Raises Conflict for what a serve config declares, or has declared."""
    if endpoint.managed_by == "serve_config":
        told = "This endpoint is declared in the serve config: change or remove it there and run 'serve deploy'."
        if endpoint.state == "deleting":
            told = "This endpoint comes from the serve config: declare it there again and run 'serve deploy'."
        raise Conflict(told, code="managed_by_serve_config")
