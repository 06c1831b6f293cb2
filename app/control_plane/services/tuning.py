"""Fine-tuning: the jobs that people ask for, what goes on with them, and the models that they make."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from app.control_plane.services.bounds import Bounds
from app.control_plane.services.compression import Compression
from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.jobs import AGAIN, Jobs, require_no_topic
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models, new_version
from app.core.errors import Conflict, InvalidField
from app.core.findings import Facts
from app.core.job_specs import JobOutcome, output_model_id
from app.core.jobs import resumed, tune_task
from app.core.records import Job, Model, Record, Version
from app.core.tuning_spec import TuningSpec
from app.store.database import Registry
from app.store.layout import HELD_MANIFEST, Manifest, job_object, read_manifest, version_prefix, write_manifest
from app.store.object_store import ObjectMissing, ObjectStore


class Base(NamedTuple):
    """What a training begins with."""

    model: Model
    version: Version


class Tuning:
    """`changed()` wakes the loop that carries out jobs."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        models: Models,
        jobs: Jobs,
        bounds: Bounds,
        machines: Machines,
        compression: Compression,
        lock: threading.RLock,
        changed: Callable[[], None],
    ):
        self._registry = registry
        self._store = store
        self._models = models
        self._jobs = jobs
        self._bounds = bounds
        self._machines = machines
        self._compression = compression
        self._lock = lock
        self._changed = changed

    def create(self, workspace: str, spec: TuningSpec, proof: Proof = no_proof) -> Job:
        """Record the wish for a training; its process begins by and by.

        Raises NotFound, InvalidField for what the model or the catalogue does not allow, Conflict for a model that is
        not ready and for a name taken.
        """
        require_no_topic(spec.notify)
        self._machines.look()  # not with the lock held
        machine = self._machines.for_job(spec.machine_type)
        with self._lock:
            base = self._base(workspace, spec)
            self._models.require_new_name(workspace, spec.output_model_name)
            self._bounds.job(workspace)
            self._bounds.finished_model(workspace)
            task = {
                "base_model": base.model.base_model,
                "precision": "BF16",
                "prefix": base.version.prefix,
                "machines": [known.model_dump() for known in self._machines.memory()],
                "machine": machine.model_dump(mode="json"),
                # Only what was given: the job tells defaults from wishes.
                "spec": spec.model_dump(mode="json", exclude_unset=True),
            }
            job = self._jobs.new("finetune", base.model, task, spec.name)
            told = f"tunes {base.model.name} to {spec.output_model_name}"
            self._registry.put(job, event(workspace, job.id, "created", told), *proof(job.id))
        self._changed()
        return job

    def _base(self, workspace: str, spec: TuningSpec) -> Base:
        model = self._models.get(workspace, spec.model)
        if model.state != "healthy":
            raise Conflict(f"Model {model.name} is {model.state}; only a healthy one can be tuned.", "model")
        versions = self._models.versions(model)
        version = next((one for one in versions if one.precision == "BF16"), versions[0])
        supports = self._models.supports(model, version)
        if refusal := supports.refusal("tune", spec.method):
            raise InvalidField(
                f"Model {model.name} cannot be tuned: {refusal}.", "model" if "tune" in supports.why_not else "method"
            )
        for precision in spec.auto_quantize:
            if refusal := supports.refusal("compress", precision):
                raise InvalidField(f"auto_quantize: {precision} cannot be made: {refusal}.", "auto_quantize")
        return Base(model, version)

    def resume(self, workspace: str, job_id: str) -> Job:
        """Go on from the newest checkpoint. Raises NotFound, Conflict for one that goes on or is done."""
        return self._begin_again(workspace, job_id, finish=False)

    def export(self, workspace: str, job_id: str) -> Job:
        """Bring what a job has made into the model repository.

        Of one that was stopped or failed, the newest checkpoint: that takes its process a while. Raises NotFound,
        Conflict for one that goes on, has been exported, or has nothing to export.
        """
        job = self._get(workspace, job_id)
        if job.output_model is not None:
            raise Conflict(f"The result of this job is model {job.output_model} already.")
        if job.state != "completed":
            if job.state in AGAIN and not self._jobs.checkpoint(job):
                raise Conflict("This job has no checkpoint yet, so there is nothing to export.")
            return self._begin_again(workspace, job_id, finish=True)
        with self._lock:
            self._jobs.require_staying(job)
            self._bounds.finished_model(workspace)
        manifest, outcome = self._held(job), self._jobs.outcome(job) or JobOutcome(ok=True)
        write_manifest(self._store, manifest)
        with self._lock:
            job = self._get(workspace, job_id)
            if job.output_model is None:
                job = job.model_copy(update={"output_model": output_model_id(job.id)})
                self._registry.put(job, *self._made(job, outcome, manifest))
        self._changed()
        return job

    def _held(self, job: Job) -> Manifest:
        """The manifest that the job has kept back."""
        try:
            return Manifest.model_validate_json(self._store.read(job_object(job.id, HELD_MANIFEST)))
        except ObjectMissing:
            raise Conflict("The files of this job are gone, so there is nothing to export.") from None

    def _begin_again(self, workspace: str, job_id: str, *, finish: bool) -> Job:
        with self._lock:
            job = self._get(workspace, job_id)
            self._jobs.require_staying(job)
            if job.state not in AGAIN:
                raise Conflict(f"This job is {job.state}; only one that is {' or '.join(AGAIN)} can go on.")
            if self._registry.get(Model, job.model_id or "") is None:
                raise Conflict(f"Model {job.model_name}, which this job began with, is gone.")
            self._bounds.job(workspace)
            self._jobs.forget_stop(job)
            run = resumed(job)
            again = job.model_copy(
                update={
                    "state": "creating", "reason": "", "run": run, "finished_at": None, "findings": (),
                    "spec": {**job.spec, "finish": finish},
                }
            )  # fmt: skip
            told = "its newest checkpoint is exported" if finish else "goes on from its newest checkpoint"
            self._registry.put(again, event(workspace, job.id, "resumed", told))
        self._changed()
        return again

    def _get(self, workspace: str, job_id: str) -> Job:
        job = self._jobs.get(workspace, job_id)
        if job.type != "finetune":
            raise Conflict(f"This is a job of type {job.type}; only fine-tuning can do that.")
        return job

    def published(self, job: Job) -> Manifest | None:
        """What a job has published."""
        return read_manifest(self._store, version_prefix(output_model_id(job.id), "BF16"))

    def settled(self, job: Job, outcome: JobOutcome, manifest: Manifest | None) -> tuple[dict[str, Any], list[Record]]:
        """What changes with a completed job: fields of its record, and the records of what it has `published`.

        To be called with the lock held, and put in one transaction with the job.
        """
        if manifest is None:
            return {}, [event(job.workspace, job.id, "held", "its result waits for jobs/{id}:export")]
        return {"output_model": output_model_id(job.id)}, self._made(job, outcome, manifest)

    def _made(self, job: Job, outcome: JobOutcome, manifest: Manifest) -> list[Record]:
        """The model that lies published, with its version, the jobs that compress it, and the events about it."""
        task = tune_task(job)
        now = datetime.now(UTC)
        model_id = output_model_id(job.id)
        name = task.spec.output_model_name
        if self._models.is_taken(job.workspace, name, but=model_id):  # since the job was made
            name = f"{name[:50]}-{job.id[-5:]}"
        model = Model(
            id=model_id,
            created_at=now,
            workspace=job.workspace,
            name=name,
            base_model=task.base_model,
            description=task.spec.description[:100],
            state="healthy",
            origin=task.spec.method,
            parent_model_id=job.model_id,
            job_id=job.id,
            findings=outcome.findings,
            facts=outcome.facts or Facts(),
            size_bytes=manifest.total_bytes,
        )
        version = new_version(model_id, "BF16", manifest.digest, now)
        wishes = self._compression.after_tuning(job, model, version, task.spec.auto_quantize, task.machine)
        created = event(job.workspace, model_id, "created", f"{name} was tuned from {job.model_name} by {job.id}")
        return [model, version, created, *wishes]
