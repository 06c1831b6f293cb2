"""Models: what people bring, and what lies published in the object store."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import get_args

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
from app.core.jobs import LONG, UNFINISHED, long_task, quantize_task, standing
from app.core.model_specs import ModelSpec
from app.core.names import new_id
from app.core.quality import QUALITY, Verdict
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Job, Model, ModelState, Version
from app.core.specs import Precision
from app.store.database import Registry
from app.store.layout import Manifest, find_manifests, read_manifest, version_prefix
from app.store.object_store import ObjectStore

LOOK_EVERY_S = 5.0
"""How often callers who ask for what there is not may have the object store listed."""

_MOST_VERDICT_BYTES = 1 << 20

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
        if model and old and (old.digest == version.digest or (old.job_id and not old.digest)):
            return  # known, or what a job has made, which registers it with what it has cost, or has it removed
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
        if version.precision != "BF16":
            version = self._with_verdict(version, manifest)
        told = f"{found.name} in {version.precision} lies in the object store"
        self._registry.put(found, version, event(found.workspace, found.id, "adopted", told))

    def _with_verdict(self, version: Version, manifest: Manifest) -> Version:
        """With what its compression has cost, where that lies beside its weights."""
        told = next((file for file in manifest.files if file.name == QUALITY), None)
        if told is None or manifest.files_prefix is not None or told.size_bytes > _MOST_VERDICT_BYTES:
            return version
        try:
            verdict = Verdict.model_validate_json(self._store.read(version.prefix + QUALITY))
        except ValueError:
            return version
        state = "failed_quality" if verdict.failures else version.state
        update = {"state": state, "reason": "; ".join(verdict.failures), "quality": verdict.card}
        return version.model_copy(update={**update, "quality_failures": verdict.failures})

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
            versions = self.versions(model)
            version = next((one for one in versions if one.precision == "BF16"), versions[0])
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

    def of_precision(self, model: Model, precision: str) -> Version:
        """One of a model's versions, in whatever state. Raises NotFound."""
        versions = self.versions(model)
        for version in versions:
            if version.precision == precision:
                return version
        made = ", ".join(sorted(version.precision for version in versions)) or "none"
        wanted = precision if precision in get_args(Precision) else "a precision of this name"
        raise NotFound(f"Model {model.name} has no version in {wanted}; it has: {made}.", "precision")

    def in_precision(self, model: Model, precision: Precision) -> Model:
        """The model with the facts and the size of its version in a precision, as far as they are known."""
        versions = {version.precision: version for version in self.versions(model)}
        version = versions.get(precision)
        if version is not None and version.facts is not None:
            return model.model_copy(update={"facts": version.facts, "size_bytes": version.size_bytes})
        if precision == "BF16" or "BF16" not in versions:
            return model
        # What is known is of the unquantized weights, which these were made of: the shape is the same, but for layers
        # that are to be kept as they are.
        kept = self._kept(version) if version else frozenset[str]()
        linear = tuple(layer for layer in model.facts.linear if layer.name not in kept)
        facts = model.facts.model_copy(update={"weights_bytes": None, "scaled_by": None, "linear": linear})
        size_bytes = version.size_bytes if version else 0
        return model.model_copy(update={"facts": facts, "size_bytes": size_bytes})

    def _kept(self, version: Version) -> frozenset[str]:
        """Last names of layers that the job which makes a version has been told to leave as they are."""
        job = self._registry.get(Job, version.job_id) if version.job_id else None
        if job is None or job.type != "quantize":
            return frozenset()
        return frozenset(name.rpartition(".")[2] for name in quantize_task(job).spec.recipe.keep)

    def require_new_name(self, workspace: str, name: str) -> None:
        """Raises Conflict for a name that a model has, or one that a job is making."""
        if self.is_taken(workspace, name):
            raise Conflict(f"There is a model named {name} already.", "output_model_name")
        for job in self._registry.find(Job, workspace=workspace, type=LONG, state=UNFINISHED):
            if long_task(job).spec.output_model_name == name:
                raise Conflict(f"Job {job.id} is making a model named {name} already.", "output_model_name")

    def is_taken(self, workspace: str, name: str, but: str = "") -> bool:
        """Whether a model, apart from one, has this name."""
        others = (model for model in self.find(workspace) if model.id != but)
        return any(model.name == name and model.state != "deleting" for model in others)

    def supports(self, model: Model, version: Version, *, accept_quality: bool = False) -> Supports:
        """What one of its versions is for; `accept_quality`: whatever it has cost in quality."""
        state = version.state if model.state == "healthy" else model.state
        if accept_quality and state == "failed_quality":
            state = "healthy"
        facts = self.in_precision(model, version.precision).facts
        return supports(self._catalog.find(model.base_model), version.precision, state, facts)

    def endpoints(self, model: Model) -> list[Endpoint]:
        """Those that name it, deleted ones too as long as they can be restored."""
        found = self._registry.find(Endpoint, workspace=model.workspace)
        return [endpoint for endpoint in found if endpoint.spec.model in (model.id, model.name)]

    def version(
        self, workspace: str, name_or_id: str, precision: Precision, *, accept_quality: bool = False
    ) -> Version:
        """The deployable version of a model; `accept_quality`: also one that has failed its quality gate.

        Raises NotFound, NotReady while it is being made, and Conflict if it cannot be deployed.
        """
        model = self.get(workspace, name_or_id)
        version = self.of_precision(model, precision)
        states = {version.state, model.state}
        if accept_quality:
            states.discard("failed_quality")
        if states == {"healthy"}:
            if refusal := self.supports(model, version, accept_quality=accept_quality).refusal("deploy"):
                raise Conflict(f"Model {model.name} in {precision} cannot be deployed: {refusal}.", "model")
            return version
        if states <= {"healthy", "preparing", "creating"}:
            raise NotReady(self._awaited(model, version), "model")
        if states == {"healthy", "failed_quality"}:
            told = f"Model {model.name} in {precision} is failed_quality: {version.reason}."
            raise Conflict(f"{told} accept_quality: true serves it all the same.", "accept_quality", "failed_quality")
        state = version.state if model.state == "healthy" else model.state
        raise Conflict(
            f"Model {model.name} in {precision} is {state}: {model.reason or version.reason or 'wait'}.", "model"
        )

    def _awaited(self, model: Model, version: Version) -> str:
        job = self._registry.get(Job, version.job_id) if version.job_id and model.state == "healthy" else None
        if job is not None:
            return f"its version is being made by {job.id} ({standing([job])})"
        return f"its model is preparing ({standing(self._jobs.of_model(model.id))})"

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
