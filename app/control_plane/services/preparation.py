"""How models come to be and how they leave: the steps that the job runner carries out, and beginning them again."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from app.control_plane.services.bounds import Bounds
from app.control_plane.services.events import event
from app.control_plane.services.jobs import Jobs
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models, new_version
from app.core.errors import Conflict
from app.core.job_specs import JobOutcome, output_model_id
from app.core.jobs import quantize_task
from app.core.records import Job, Model, Version
from app.store.database import Registry
from app.store.layout import job_object, version_prefix
from app.store.object_store import ObjectStore
from app.store.removal import delete_version, sweep

SWEEP_AFTER = timedelta(days=1)

Step = Literal["validate", "upload"]

log = logging.getLogger("ray.serve")


class Preparation:
    """A model is written down only while it is `preparing`: whoever deletes it meanwhile has the last word."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        models: Models,
        jobs: Jobs,
        bounds: Bounds,
        machines: Machines,
        lock: threading.RLock,
        changed: Callable[[], None],
    ):
        self._registry = registry
        self._store = store
        self._models = models
        self._jobs = jobs
        self._bounds = bounds
        self._machines = machines
        self._lock = lock
        self._changed = changed

    def begin(self, model: Model, step: Step, validated: JobOutcome | None) -> None:
        """Start the next job of a model in preparation, and keep what its validation found out."""
        job = self._jobs.new(step, model, self._task(model, step, validated))
        with self._lock:
            current = self._registry.get(Model, model.id)
            if current is None or current.state != "preparing":
                return  # it is being deleted
            if validated:
                found = {"findings": validated.findings, "facts": validated.facts or current.facts}
                current = current.model_copy(update={**found, "listing": validated.listing})
            self._registry.put(current, job, event(job.workspace, job.id, "created", f"{step} of {model.name}"))

    def _task(self, model: Model, step: Step, outcome: JobOutcome | None) -> dict[str, Any]:
        spec = model.spec
        assert spec is not None
        assert spec.source is not None
        task: dict[str, Any] = {
            "base_model": model.base_model,
            "precision": spec.precision,
            "source": spec.source.model_dump(exclude_none=True),
            "machines": [known.model_dump() for known in self._machines.memory()],
        }
        if step == "upload":
            task |= {"name": model.name, "mode": spec.mode, "validation": spec.validation}
            task |= {"listing": outcome.listing if outcome else None}
        return task

    def retry(self, workspace: str, name_or_id: str) -> Model:
        """Begin a failed upload again; what has arrived is not sent twice. Raises NotFound, Conflict."""
        with self._lock:
            model = self._models.get(workspace, name_or_id)
            if model.state != "failed" or model.spec is None:
                raise Conflict(f"Model {model.name} is {model.state}; only a failed upload can be retried.")
            self._bounds.job(workspace)
            step: Step = "validate" if model.spec.validation else "upload"
            job = self._jobs.new(step, model, self._task(model, step, None))
            again = model.model_copy(update={"state": "preparing", "reason": "", "findings": (), "listing": None})
            begun = event(workspace, job.id, "created", f"{step} of {model.name}")
            self._registry.put(again, job, begun, event(workspace, model.id, "retried", "its upload begins again"))
        self._changed()
        return again

    def publish(self, model: Model, outcome: JobOutcome) -> None:
        """Its upload is done: the version is there, and the model is healthy."""
        assert model.spec is not None
        version = new_version(model.id, model.spec.precision, outcome.digest or "", datetime.now(UTC))
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
        version = new_version(model.id, model.spec.precision, "", datetime.now(UTC))
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

    def erase(self, model: Model) -> None:
        """Free the storage of a model that is being deleted, then forget it; safe to repeat."""
        versions = self._models.versions(model)
        for version in versions:
            delete_version(self._store, version.prefix)
        self._store.delete(job_object(model.id, "journal.json"))
        note = event(model.workspace, model.id, "deleted", f"{model.name} and its weights are gone")
        with self._lock:
            self._registry.change(put=[note], delete=[model, *versions])

    def sweep(self) -> None:
        """Free what uploads that nobody remembers have left in the object store."""
        known = {version.prefix for version in self._registry.find(Version)}
        known |= {version_prefix(output_model_id(job.id), "BF16") for job in self._registry.find(Job, type="finetune")}
        compressions = [quantize_task(job) for job in self._registry.find(Job, type="quantize")]
        known |= {version_prefix(task.output_model_id, task.precision) for task in compressions}
        freed_bytes = sweep(self._store, known, datetime.now(UTC) - SWEEP_AFTER)
        if freed_bytes:
            log.info("freed %d bytes of forgotten uploads", freed_bytes)
