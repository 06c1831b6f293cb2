"""Models: what people bring, and what lies published in the object store."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from app.catalog.catalog import Catalog
from app.catalog.wishes import complete
from app.control_plane.services.actor import meant
from app.control_plane.services.bounds import Bounds
from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.jobs import Jobs
from app.core.capabilities import Supports, supports
from app.core.errors import Conflict, NotFound, NotReady
from app.core.job_specs import job_of_model
from app.core.jobs import UNFINISHED, standing
from app.core.model_specs import ModelSpec
from app.core.names import new_id
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Job, Model, ModelState, Version
from app.core.specs import Precision
from app.store.database import Registry
from app.store.layout import Manifest, find_manifests, read_manifest, version_prefix
from app.store.object_store import ObjectStore

LOOK_EVERY_S = 5.0
"""How often callers who ask for what there is not may have the object store listed."""

log = logging.getLogger("ray.serve")


class Models:
    """The model repository's records. `changed()` wakes the loop that carries out wishes."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        catalog: Catalog,
        jobs: Jobs,
        bounds: Bounds,
        lock: threading.RLock,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._registry = registry
        self._store = store
        self._catalog = catalog
        self._jobs = jobs
        self._bounds = bounds
        self._lock = lock
        self._changed = changed
        self._clock = clock
        self._looking = threading.Lock()
        self._look_at = 0.0
        """When callers may have the object store listed again."""

    def adopt_missing(self, workspace: str, name_or_id: str, precision: Precision | None = None) -> None:
        """Look for a model, or its version, in the object store if it is not known and nobody has looked just now."""
        if not self.is_missing(workspace, name_or_id, precision):
            return
        with self._looking:  # whoever waits here finds what was found
            if self._clock() >= self._look_at:
                self.adopt()
                self._look_at = self._clock() + LOOK_EVERY_S

    def is_missing(self, workspace: str, name_or_id: str, precision: Precision | None = None) -> bool:
        """Whether there is no such model, or no such version of it in whatever state."""
        try:
            model = self.get(workspace, name_or_id)
        except NotFound:
            return True
        return precision is not None and all(found.precision != precision for found in self.versions(model))

    def adopt(self) -> None:
        """Register every published version that the registry does not know, so that it can be rebuilt from storage.

        While the store does not answer, what is known has to do.
        """
        try:
            for manifest in find_manifests(self._store):
                with self._lock:
                    self._register(manifest)
        except OSError:
            log.warning("what lies in the object store cannot be listed", exc_info=True)

    def _register(self, manifest: Manifest) -> None:
        now = datetime.now(UTC)
        model = self._registry.get(Model, manifest.model_id)
        if model and model.state != "healthy":
            return  # it is being made or removed, and whoever does that sees to its versions
        if model is None and self._registry.get(Job, job_of_model(manifest.model_id)):
            return  # a job has made it, which registers it, with where it comes from, or has it removed
        version = new_version(manifest.model_id, manifest.precision, manifest.digest, now)
        old = self._registry.get(Version, version.id)
        if model and old and old.digest == version.digest:
            return
        if model is None and read_manifest(self._store, manifest.prefix) is None:
            return  # it was removed since, and the record with it
        found = model or Model(
            id=manifest.model_id,
            created_at=now,
            workspace=DEFAULT_WORKSPACE,
            name=manifest.name,
            base_model=manifest.base_model,
            state="healthy",
            size_bytes=manifest.total_bytes,
        )
        told = f"{found.name} in {version.precision} lies in the object store"
        self._registry.put(found, version, event(found.workspace, found.id, "adopted", told))

    def create(self, workspace: str, spec: ModelSpec, proof: Proof = no_proof) -> Model:
        """Record the wish for a model; it is validated and copied by and by.

        Raises InvalidField for what the catalogue does not allow, Conflict for a name taken.
        """
        return self.add(self.planned(workspace, spec), proof)

    def planned(self, workspace: str, spec: ModelSpec) -> Model:
        """A model as `add` takes it. Raises InvalidField for what the catalogue does not allow."""
        spec = complete(spec, self._catalog)
        now = datetime.now(UTC)
        return Model(
            id=new_id("m", now),
            created_at=now,
            workspace=workspace,
            name=spec.name,
            base_model=spec.base_model,
            description=spec.description,
            spec=spec,
            state="preparing",
        )

    def add(self, model: Model, proof: Proof = no_proof) -> Model:
        """Record the wish for a planned model. Raises Conflict for a name taken."""
        assert model.spec is not None
        version = new_version(model.id, model.spec.precision, "", model.created_at)
        version = version.model_copy(update={"state": "creating"})
        with self._lock:
            if any(other.name == model.name and other.state != "deleting" for other in self.find(model.workspace)):
                raise Conflict(f"There is a model named {model.name} already.", "name")
            self._bounds.model(model.workspace)
            created = event(model.workspace, model.id, "created", f"created as {model.name}")
            self._registry.put(model, version, created, *proof(model.id))
        self._changed()
        return model

    def revalidate(self, workspace: str, name_or_id: str, name: str, proof: Proof = no_proof) -> Job:
        """Have a model's weights looked at once more, where they lie now. Raises NotFound, Conflict while preparing."""
        with self._lock:  # from here on the job holds the model
            model = self.get(workspace, name_or_id)
            if model.state != "healthy":
                told = f"Model {model.name} is {model.state}; only a healthy one can be validated again."
                raise Conflict(told, "model")
            self._bounds.job(workspace)
            version = self.versions(model)[0]
            task = {
                "base_model": model.base_model,
                "precision": version.precision,
                "prefix": version.prefix,
            }
            job = self._jobs.new("validate", model, task, name)
            self._registry.put(job, event(workspace, job.id, "created", f"validates {model.name}"), *proof(job.id))
        self._changed()
        return job

    def find(self, workspace: str) -> list[Model]:
        """A workspace's models, oldest first."""
        return self._registry.find(Model, workspace=workspace)

    def in_state(self, state: ModelState) -> list[Model]:
        """The models of all workspaces in this state."""
        return self._registry.find(Model, state=state)

    def get(self, workspace: str, name_or_id: str) -> Model:
        """A model by its ID or its name. Raises NotFound."""
        model = self._registry.get(Model, name_or_id)
        if model is None or model.workspace != workspace:
            named = [m for m in self.find(workspace) if m.name == name_or_id]
            named.sort(key=lambda m: m.state == "deleting")  # its name may be another's already
            if not named:
                raise NotFound(f"There is no model {name_or_id[:128]!r} in this workspace.", "model")
            model = named[0]
            meant(name_or_id, model.id)
        return model

    def versions(self, model: Model) -> list[Version]:
        """A model's versions."""
        return self._registry.find(Version, model_id=model.id)

    def supports(self, model: Model, version: Version) -> Supports:
        """What one of its versions is for."""
        state = version.state if model.state == "healthy" else model.state
        return supports(self._catalog.find(model.base_model), version.precision, state, model.facts)

    def endpoints(self, model: Model) -> list[Endpoint]:
        """Those that name it, deleted ones too as long as they can be restored."""
        found = self._registry.find(Endpoint, workspace=model.workspace)
        return [endpoint for endpoint in found if endpoint.spec.model in (model.id, model.name)]

    def version(self, workspace: str, name_or_id: str, precision: Precision) -> Version:
        """The deployable version of a model.

        Raises NotFound, NotReady while it is being made, and Conflict if it cannot be deployed.
        """
        model = self.get(workspace, name_or_id)
        versions = self.versions(model)
        for version in versions:
            if version.precision == precision:
                states = {version.state, model.state}
                if states == {"healthy"}:
                    if refusal := self.supports(model, version).refusal("deploy"):
                        raise Conflict(f"Model {model.name} in {precision} cannot be deployed: {refusal}.", "model")
                    return version
                if states <= {"healthy", "preparing", "creating"}:
                    told = standing(self._jobs.of_model(model.id))
                    raise NotReady(f"its model is preparing ({told})", "model")
                state = version.state if model.state == "healthy" else model.state
                raise Conflict(f"Model {model.name} in {precision} is {state}: {model.reason or 'wait'}.", "model")
        made = ", ".join(sorted(version.precision for version in versions)) or "none"
        raise NotFound(f"Model {model.name} has no version in {precision}; it has: {made}.", "precision")

    def delete(self, workspace: str, name_or_id: str) -> Model:
        """Wish it away, weights and all. Raises NotFound, and Conflict while endpoints or running jobs refer to it."""
        with self._lock:
            model = self.get(workspace, name_or_id)
            users = [
                f"endpoint {endpoint.id} ({endpoint.spec.name}) is {_standing(endpoint)}"
                for endpoint in self.endpoints(model)
            ]
            users += [
                f"job {job.id} ({job.type}) is {job.state}"
                for job in self._jobs.of_model(model.id)
                if job.state in UNFINISHED
            ]
            users += [f"version {v.precision} is being made" for v in self.versions(model) if v.state == "creating"]
            if users:
                more = f"; and {len(users) - 5} more" if len(users) > 5 else ""
                raise Conflict(f"Model {model.name} is in use: {'; '.join(users[:5])}{more}.")
            gone = model.model_copy(update={"state": "deleting", "reason": ""})
            self._registry.put(gone, event(workspace, model.id, "deleting", "its weights are removed"))
        self._changed()
        return gone


def _standing(endpoint: Endpoint) -> str:
    """What holds its model: also an endpoint that is deleted, as long as it can be restored."""
    return "deleted, but can be restored until it is purged" if endpoint.deleted_at else endpoint.state


def new_version(model_id: str, precision: Precision, digest: str, now: datetime) -> Version:
    """One whose weights are there; the digest is their manifest's."""
    return Version(
        id=f"{model_id}:{precision}",
        created_at=now,
        model_id=model_id,
        precision=precision,
        prefix=version_prefix(model_id, precision),
        digest=digest,
        state="healthy",
    )
