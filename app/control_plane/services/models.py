"""Models: what people bring, what lies published in the object store, and how both leave again."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from app.catalog.catalog import Catalog
from app.control_plane.services.events import event
from app.control_plane.services.jobs import Jobs
from app.core.errors import Conflict, InvalidField, NotFound
from app.core.job_specs import JobOutcome, MachineMemory
from app.core.jobs import UNFINISHED
from app.core.model_specs import ModelSpec, Source
from app.core.names import new_id
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Job, Model, ModelState, Version
from app.core.specs import MACHINE_TYPES, Precision
from app.store.database import Registry
from app.store.layout import Manifest, find_manifests, job_object, version_prefix
from app.store.object_store import ObjectStore
from app.store.removal import delete_version, sweep

SWEEP_AFTER = timedelta(days=1)

log = logging.getLogger("ray.serve")


class Models:
    """The model repository's records. `changed()` wakes the loop that carries out wishes."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        catalog: Catalog,
        jobs: Jobs,
        lock: threading.RLock,
        changed: Callable[[], None],
    ):
        self._registry = registry
        self._store = store
        self._catalog = catalog
        self._jobs = jobs
        self._lock = lock
        self._changed = changed

    def adopt(self) -> None:
        """Register every published version that the registry does not know, so that it can be rebuilt from storage."""
        for manifest in find_manifests(self._store):
            with self._lock:
                self._register(manifest)

    def sweep(self) -> None:
        """Free what uploads that nobody remembers have left in the object store."""
        known = {version.prefix for version in self._registry.find(Version)}
        freed_bytes = sweep(self._store, known, datetime.now(UTC) - SWEEP_AFTER)
        if freed_bytes:
            log.info("freed %d bytes of forgotten uploads", freed_bytes)

    def _register(self, manifest: Manifest) -> None:
        now = datetime.now(UTC)
        model = self._registry.get(Model, manifest.model_id)
        if model and model.state != "healthy":
            return  # it is being made or removed, and whoever does that sees to its versions
        version = _version(manifest.model_id, manifest.precision, manifest.digest, now)
        old = self._registry.get(Version, version.id)
        if model and old and old.digest == version.digest:
            return
        found = model or Model(
            id=manifest.model_id,
            created_at=now,
            workspace=DEFAULT_WORKSPACE,
            name=manifest.name,
            base_model=manifest.base_model,
            state="healthy",
            size_bytes=manifest.total_bytes,
        )
        self._registry.put(found, version)

    def create(self, workspace: str, spec: ModelSpec) -> Model:
        """Record the wish for a model; it is validated and copied by and by.

        Raises InvalidField for a base model or precision that the catalogue does not allow, Conflict for a name taken.
        """
        entry = self._catalog.find(spec.base_model)
        if entry is None:
            raise InvalidField(
                "base_model is not in the catalogue; see GET /platform/v1/catalog. The operator can add entries.",
                "base_model",
            )
        if spec.precision not in entry.upload_precisions:
            allowed = ", ".join(entry.upload_precisions) or "none"
            raise InvalidField(
                f"precision {spec.precision} cannot be uploaded for {entry.base_model}; allowed: {allowed}.",
                "precision",
            )
        if spec.source is None:
            if entry.recommended_source is None:
                why = "needs custom weights" if entry.custom_weights_only else "has no recommended weights here"
                raise InvalidField(f"source is missing: {entry.base_model} {why}.", "source")
            spec = spec.model_copy(update={"source": Source(uri=entry.recommended_source)})
        now = datetime.now(UTC)
        model = Model(
            id=new_id("m", now),
            created_at=now,
            workspace=workspace,
            name=spec.name,
            base_model=entry.base_model,
            description=spec.description,
            spec=spec,
            state="preparing",
        )
        version = _version(model.id, spec.precision, "", now).model_copy(update={"state": "creating"})
        with self._lock:
            if any(other.name == spec.name and other.state != "deleting" for other in self.find(workspace)):
                raise Conflict(f"There is a model named {spec.name} already.", "name")
            self._registry.put(model, version, event(workspace, model.id, "created", f"created as {spec.name}"))
        self._changed()
        return model

    def begin(self, model: Model, step: Literal["validate", "upload"], validated: JobOutcome | None) -> None:
        """Start the next job of a model in preparation, and keep what its validation found out."""
        job = self._jobs.new(step, model, self._task(model, step, validated))
        with self._lock:
            current = self._registry.get(Model, model.id)
            if current is None or current.state != "preparing":
                return  # it is being deleted
            if validated:
                found = {"findings": validated.findings, "facts": validated.facts or current.facts}
                current = current.model_copy(update=found)
            self._registry.put(current, job)

    def _task(self, model: Model, step: str, outcome: JobOutcome | None) -> dict[str, Any]:
        spec = model.spec
        assert spec is not None
        assert spec.source is not None
        memory = [
            MachineMemory(name=machine.name, memory_bytes=machine.memory_bytes)
            for machine in MACHINE_TYPES.values()
            if machine.memory_bytes
        ]
        task: dict[str, Any] = {
            "base_model": model.base_model,
            "precision": spec.precision,
            "source": spec.source.model_dump(exclude_none=True),
            "machines": [known.model_dump() for known in memory],
        }
        if step == "upload":
            task |= {"name": model.name, "mode": spec.mode, "validation": spec.validation}
            task |= {"listing": outcome.listing if outcome else None}
        return task

    def retry(self, workspace: str, name_or_id: str) -> Model:
        """Begin a failed upload again; what has arrived is not sent twice. Raises NotFound, Conflict."""
        with self._lock:
            model = self.get(workspace, name_or_id)
            if model.state != "failed" or model.spec is None:
                raise Conflict(f"Model {model.name} is {model.state}; only a failed upload can be retried.")
            step: Literal["validate", "upload"] = "validate" if model.spec.validation else "upload"
            job = self._jobs.new(step, model, self._task(model, step, None))
            again = model.model_copy(update={"state": "preparing", "reason": "", "findings": ()})
            self._registry.put(again, job, event(workspace, model.id, "retried", "its upload begins again"))
        self._changed()
        return again

    def revalidate(self, workspace: str, name_or_id: str, name: str) -> Job:
        """Have a model's weights looked at once more, where they lie now. Raises NotFound, Conflict while preparing."""
        model = self.get(workspace, name_or_id)
        if model.state != "healthy":
            raise Conflict(f"Model {model.name} is {model.state}; only a healthy one can be validated again.", "model")
        version = self.versions(model)[0]
        task = {
            "base_model": model.base_model,
            "precision": version.precision,
            "prefix": version.prefix,
        }
        job = self._jobs.new("validate", model, task, name)
        self._registry.put(job, event(workspace, job.id, "created", f"validates {model.name}"))
        self._changed()
        return job

    def publish(self, model: Model, outcome: JobOutcome) -> None:
        """Its upload is done: the version is there, and the model is healthy."""
        assert model.spec is not None
        version = _version(model.id, model.spec.precision, outcome.digest or "", datetime.now(UTC))
        self._settle(
            model,
            version,
            state="healthy",
            findings=outcome.findings or model.findings,
            facts=outcome.facts or model.facts,
            size_bytes=outcome.size_bytes,
        )

    def fail(self, model: Model, reason: str, outcome: JobOutcome | None) -> None:
        """It cannot be made: say why."""
        assert model.spec is not None
        version = _version(model.id, model.spec.precision, "", datetime.now(UTC))
        version = version.model_copy(update={"state": "failed", "reason": reason})
        findings = outcome.findings if outcome else ()
        self._settle(model, version, state="failed", reason=reason, findings=findings)

    def _settle(self, model: Model, version: Version, **update: Any) -> None:
        with self._lock:
            current = self._registry.get(Model, model.id)
            if current is None or current.state != "preparing":
                return  # it is being deleted
            settled = current.model_copy(update=update)
            note = event(model.workspace, model.id, settled.state, settled.reason)
            self._registry.put(settled, version, note)

    def find(self, workspace: str) -> list[Model]:
        """A workspace's models, oldest first."""
        return self._registry.find(Model, workspace=workspace)

    def in_state(self, state: ModelState) -> list[Model]:
        """The models of all workspaces in this state."""
        return self._registry.find(Model, state=state)

    def get(self, workspace: str, name_or_id: str) -> Model:
        """A model by its ID or its name. Raises NotFound."""
        model = self._registry.get(Model, name_or_id)
        if model is None:
            model = next((m for m in self.find(workspace) if m.name == name_or_id), None)
        if model is None or model.workspace != workspace:
            raise NotFound(f"There is no model {name_or_id!r} in this workspace.", "model")
        return model

    def versions(self, model: Model) -> list[Version]:
        """A model's versions."""
        return self._registry.find(Version, model_id=model.id)

    def version(self, workspace: str, name_or_id: str, precision: Precision) -> Version:
        """The deployable version of a model. Raises NotFound, and Conflict while it is not healthy."""
        model = self.get(workspace, name_or_id)
        versions = self.versions(model)
        for version in versions:
            if version.precision == precision:
                if version.state != "healthy" or model.state != "healthy":
                    state = version.state if model.state == "healthy" else model.state
                    raise Conflict(f"Model {model.name} in {precision} is {state}: {model.reason or 'wait'}.", "model")
                return version
        made = ", ".join(sorted(version.precision for version in versions)) or "none"
        raise NotFound(f"Model {model.name} has no version in {precision}; it has: {made}.", "precision")

    def delete(self, workspace: str, name_or_id: str) -> Model:
        """Wish it away, weights and all. Raises NotFound, and Conflict while endpoints or running jobs refer to it."""
        with self._lock:
            model = self.get(workspace, name_or_id)
            users = [
                f"endpoint {endpoint.id} ({endpoint.spec.name}) is {endpoint.state}"
                for endpoint in self._registry.find(Endpoint, workspace=workspace)
                if endpoint.spec.model in (model.id, model.name)
            ]
            users += [
                f"job {job.id} ({job.type}) is {job.state}"
                for job in self._jobs.of_model(model.id)
                if job.state in UNFINISHED
            ]
            users += [f"version {v.precision} is being made" for v in self.versions(model) if v.state == "creating"]
            if users:
                raise Conflict(f"Model {model.name} is in use: {'; '.join(users[:5])}.")
            gone = model.model_copy(update={"state": "deleting", "reason": ""})
            self._registry.put(gone, event(workspace, model.id, "deleting", "its weights are removed"))
        self._changed()
        return gone

    def erase(self, model: Model) -> None:
        """Free the storage of a model that is being deleted, then forget it; safe to repeat."""
        versions = self.versions(model)
        for version in versions:
            delete_version(self._store, version.prefix)
        self._store.delete(job_object(model.id, "journal.json"))
        note = event(model.workspace, model.id, "deleted", f"{model.name} and its weights are gone")
        with self._lock:
            self._registry.delete(model, *versions)
            self._registry.put(note)


def _version(model_id: str, precision: Precision, digest: str, now: datetime) -> Version:
    return Version(
        id=f"{model_id}:{precision}",
        created_at=now,
        model_id=model_id,
        precision=precision,
        prefix=version_prefix(model_id, precision),
        digest=digest,
        state="healthy",
    )
