"""Compression: the jobs that people ask for, and the versions that they make."""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from app.control_plane.services.bounds import Bounds
from app.control_plane.services.events import event
from app.control_plane.services.idempotency import Proof, no_proof
from app.control_plane.services.jobs import AGAIN, Jobs, require_no_topic
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models, new_version
from app.core.compression_memory import memory_problem
from app.core.compression_plan import plan
from app.core.compression_spec import QuantizeSpec, VersionSpec
from app.core.errors import Conflict, InvalidField
from app.core.findings import Facts
from app.core.job_specs import JobOutcome, QuantizeTask, output_model_id
from app.core.jobs import anew, quantize_task
from app.core.records import Job, Model, Record, Version
from app.core.specs import MachineType
from app.core.tuning_spec import Quantized
from app.store.database import Registry
from app.store.folders import SourceChanged, StoreFolder
from app.store.layout import Manifest, read_manifest, version_prefix
from app.store.object_store import ObjectStore, StoreError
from app.store.removal import delete_version
from app.weights.safetensors_headers import HeaderError
from app.weights.stored_shapes import read_stored

_REASON_LIMIT = 1000
_MOST_FILES = 200
"""With weights; with more of them a look takes too long, and the job finds out for itself."""

log = logging.getLogger("ray.serve")


class Base(NamedTuple):
    """What a compression begins with."""

    model: Model
    version: Version


class Compression:
    """`changed()` wakes the loop that carries out jobs."""

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

    def create(self, workspace: str, spec: QuantizeSpec, proof: Proof = no_proof) -> Job:
        """Record the wish for a compression; its process begins by and by.

        Raises NotFound, InvalidField for what the model, the catalogue, the machines or their memory do not allow,
        Conflict for a model that is not ready, and for a version or a name that is there or being made.
        """
        require_no_topic(spec.notify)
        self._machines.look()  # neither this nor the object store is asked with the lock held
        machine, targets = self._machines.for_job(spec.machine_type), self._machines.targets()
        base = self._base(workspace, spec)
        self._require_new(workspace, spec, base.model)
        self._require_plan(base.version, spec, machine, targets)
        self._clear_failed(spec, base.model)
        with self._lock:
            base = self._base(workspace, spec)
            self._require_new(workspace, spec, base.model)
            self._bounds.job(workspace)
            if spec.output_model_name is not None:
                self._bounds.finished_model(workspace)
            job = self._jobs.new("quantize", base.model, self._task(spec, base, machine, targets), spec.name)
            self._registry.put(*self._begun(job), *proof(job.id))
        self._changed()
        return job

    def spec_of(self, workspace: str, name_or_id: str, wish: VersionSpec) -> QuantizeSpec:
        """The job that makes a version as it is wished for. Raises NotFound."""
        model = self._models.get(workspace, name_or_id)
        fields = {name: getattr(wish, name) for name in wish.model_fields_set - {"name"}}
        return QuantizeSpec(name=wish.name or _job_name(wish.precision, model), model=model.id, **fields)

    def after_tuning(
        self, tuned: Job, model: Model, version: Version, precisions: Iterable[Quantized], machine: MachineType
    ) -> list[Record]:
        """The jobs that a tuning wished for, with their versions and events, to be put together with its model.

        Their IDs follow from the tuning's, so that whoever asks again gets none twice. What the catalogue has come to
        refuse since is told instead. To be called with the lock held.
        """
        records: list[Record] = []
        for precision in precisions:
            job_id = f"{tuned.id}-{re.sub('[^a-z0-9]', '-', precision.lower())}"
            if self._registry.get(Job, job_id) is not None:
                continue
            if refusal := self._models.supports(model, version).refusal("compress", precision):
                told = f"{precision} of {model.name} ({model.id}) cannot be made: {refusal}"
                records.append(event(tuned.workspace, tuned.id, "auto_quantize", told))
                continue
            spec = QuantizeSpec(
                name=_job_name(precision, model), model=model.id, precision=precision, machine_type=machine.name
            )
            task = self._task(spec, Base(model, version), machine, self._machines.targets())
            job = self._jobs.new("quantize", model, task, spec.name, job_id)
            told = f"{precision} of {model.name} ({model.id}) is made by {job_id}"
            records += [*self._begun(job), event(tuned.workspace, tuned.id, "auto_quantize", told)]
        return records

    def _base(self, workspace: str, spec: QuantizeSpec) -> Base:
        model = self._models.get(workspace, spec.model)
        if model.state != "healthy":
            raise Conflict(f"Model {model.name} is {model.state}; only a healthy one can be compressed.", "model")
        versions = self._models.versions(model)
        version = next((one for one in versions if one.precision == "BF16"), None) or next(iter(versions), None)
        if version is None:
            raise Conflict(f"Model {model.name} has no version.", "model")
        supports = self._models.supports(model, version)
        if refusal := supports.refusal("compress", spec.precision):
            param = "model" if "compress" in supports.why_not else "precision"
            raise InvalidField(f"Model {model.name} cannot be compressed to {spec.precision}: {refusal}.", param)
        return Base(model, version)

    def _require_plan(
        self, version: Version, spec: QuantizeSpec, machine: MachineType, targets: Sequence[MachineType]
    ) -> None:
        """Raises InvalidField where no recipe goes with the weights and the targets, or the memory is not enough.

        What cannot be read now is left to the job, which looks once more before it loads anything.
        """
        try:
            stored = read_stored(StoreFolder(self._store, version.prefix), _MOST_FILES)
        except (HeaderError, SourceChanged, StoreError):
            log.warning("the shapes of the weights at %s cannot be read", version.prefix, exc_info=True)
            return
        if stored is None:
            return
        peak_bytes = plan(spec, stored, targets).peak_bytes
        held = machine.memory_bytes or self._machines.only_node_memory_bytes()
        if held is not None and (problem := memory_problem(peak_bytes, held, machine.name)):
            raise InvalidField(problem, "machine_type", "memory_short")

    def _require_new(self, workspace: str, spec: QuantizeSpec, model: Model) -> None:
        """Raises Conflict for a version that is there, or being made, and for a name taken."""
        if spec.output_model_name is not None:
            self._models.require_new_name(workspace, spec.output_model_name)
            return
        version = self._version(model.id, spec.precision)
        if version is None or version.state == "failed":
            return
        if version.state == "creating":
            by = f" by {version.job_id}" if version.job_id else ""
            raise Conflict(f"Model {model.name} in {spec.precision} is being made{by} already.", "precision")
        raise Conflict(
            f"Model {model.name} has a version in {spec.precision} already, which is {version.state}; delete it first "
            f"(DELETE /platform/v1/models/{model.id}/versions/{spec.precision}), or name an output_model_name.",
            "precision",
        )

    def _clear_failed(self, spec: QuantizeSpec, model: Model) -> None:
        """Remove what a job that failed may have left where the version is to lie."""
        version = self._version(model.id, spec.precision) if spec.output_model_name is None else None
        if version is not None and version.state == "failed":
            delete_version(self._store, version.prefix)

    def _version(self, model_id: str, precision: str) -> Version | None:
        return self._registry.get(Version, f"{model_id}:{precision}")

    def _task(self, spec: QuantizeSpec, base: Base, machine: MachineType, targets: list[MachineType]) -> dict[str, Any]:
        return {
            "base_model": base.model.base_model,
            "precision": spec.precision,
            "base_precision": base.version.precision,
            "prefix": base.version.prefix,
            "machines": [known.model_dump() for known in self._machines.memory()],
            "machine": machine.model_dump(mode="json"),
            "targets": [target.model_dump(mode="json") for target in targets],
            # Only what was given: the job tells defaults from wishes. What kind it is is always said.
            "spec": spec.model_dump(mode="json", exclude_unset=True) | {"type": spec.type},
        }

    def _begun(self, job: Job) -> list[Record]:
        """A job that is to begin, with the version that it is to make."""
        task = quantize_task(job)
        told = f"makes {task.precision} of {job.model_name}"
        if task.spec.output_model_name is not None:
            told += f" as {task.spec.output_model_name}"
            return [job, event(job.workspace, job.id, "created", told)]
        return [job, self._creating(job, task), event(job.workspace, job.id, "created", told)]

    def _creating(self, job: Job, task: QuantizeTask) -> Version:
        version = new_version(task.output_model_id, task.precision, "", datetime.now(UTC))
        return version.model_copy(update={"state": "creating", "job_id": job.id})

    def resume(self, workspace: str, job_id: str) -> Job:
        """Go on with a job that was stopped or failed, as far as its process left something to go on from.

        Raises NotFound, Conflict for one that goes on or is done, and where another has made its version since.
        """
        with self._lock:
            job = self._jobs.get(workspace, job_id)
            if job.type != "quantize":
                raise Conflict(f"This is a job of type {job.type}; only compression can do that.")
            self._jobs.require_staying(job)
            if job.state not in AGAIN:
                raise Conflict(f"This job is {job.state}; only one that is {' or '.join(AGAIN)} can go on.")
            model, task = self._registry.get(Model, job.model_id or ""), quantize_task(job)
            if model is None or model.state != "healthy":
                state = model.state if model else "gone"
                raise Conflict(f"Model {job.model_name}, which this job began with, is {state}.")
            self._require_new(workspace, task.spec, model)
            self._bounds.job(workspace)
            self._jobs.forget_stop(job)
            update = {"state": "creating", "reason": "", "run": anew(job), "finished_at": None, "started_at": None}
            again = job.model_copy(update={**update, "findings": ()})
            records: list[Record] = [again, event(workspace, job.id, "resumed", "goes on from what it had done")]
            if task.spec.output_model_name is None:
                records.append(self._creating(job, task))
            self._registry.put(*records)
        self._changed()
        return again

    def published(self, job: Job) -> Manifest | None:
        """What a job has published."""
        task = quantize_task(job)
        return read_manifest(self._store, version_prefix(task.output_model_id, task.precision))

    def settled(self, job: Job, outcome: JobOutcome, manifest: Manifest | None) -> tuple[dict[str, Any], list[Record]]:
        """What changes with a completed job: fields of its record, and the records of what it has `published`.

        To be called with the lock held, and put in one transaction with the job.
        """
        if manifest is None:
            reason = "its files are gone"
            return {"state": "failed", "reason": reason}, self.unsettled(job, reason)
        task, now = quantize_task(job), datetime.now(UTC)
        model_id, failures = task.output_model_id, outcome.quality_failures
        state = "failed_quality" if failures else "healthy"
        before = self._version(model_id, task.precision)
        version = new_version(model_id, task.precision, manifest.digest, before.created_at if before else now)
        version = version.model_copy(
            update={
                "state": state, "reason": "; ".join(failures)[:_REASON_LIMIT], "job_id": job.id,
                "recipe": outcome.recipe, "quality": outcome.quality, "quality_failures": failures,
                "facts": outcome.facts, "size_bytes": manifest.total_bytes,
            }
        )  # fmt: skip
        told = f"{task.precision} is {state}, made by {job.id}{': ' if failures else ''}{version.reason}"
        fields = {"output_model": model_id}
        if task.spec.output_model_name is None:
            return fields, [version, event(job.workspace, model_id, "version", told)]
        model = self._new_model(job, task, outcome, manifest, now)
        created = event(job.workspace, model_id, "created", f"{model.name} was made of {job.model_name} by {job.id}")
        return fields, [model, version, created, event(job.workspace, model_id, "version", told)]

    def _new_model(self, job: Job, task: QuantizeTask, outcome: JobOutcome, manifest: Manifest, now: datetime) -> Model:
        name, model_id = task.spec.output_model_name or "", output_model_id(job.id)
        if self._models.is_taken(job.workspace, name, but=model_id):  # since the job was made
            name = f"{name[:50]}-{job.id[-5:]}"
        base = self._registry.get(Model, task.model_id)
        return Model(
            id=model_id,
            created_at=now,
            workspace=job.workspace,
            name=name,
            base_model=task.base_model,
            description=task.spec.description[:100],
            state="healthy",
            origin=base.origin if base else "uploaded",
            parent_model_id=job.model_id,
            job_id=job.id,
            findings=outcome.findings,
            facts=outcome.facts or Facts(),
            size_bytes=manifest.total_bytes,
        )

    def unsettled(self, job: Job, reason: str) -> list[Record]:
        """What changes with a job that failed or was stopped: its version says so. As for `settled`."""
        task = quantize_task(job)
        version = self._version(task.output_model_id, task.precision)
        if version is None or version.state != "creating" or version.job_id != job.id:
            return []
        told = f"{job.id} did not make it{': ' if reason else ''}{reason}"[:_REASON_LIMIT]
        return [version.model_copy(update={"state": "failed", "reason": told})]

    def delete_version(self, workspace: str, name_or_id: str, precision: str) -> Version:
        """Remove a version that was made of another, files and all; safe to repeat after a crash.

        Raises NotFound, and Conflict for the model's own one, for one that is being made, and while endpoints use it.
        """
        with self._lock:
            model = self._models.get(workspace, name_or_id)
            version = self._models.of_precision(model, precision)
            if len(self._models.versions(model)) == 1 or version.precision == "BF16":
                raise Conflict(f"{version.precision} is what model {model.name} is made of: delete the model.")
            if version.state == "creating":
                raise Conflict(f"Model {model.name} in {precision} is being made; stop its job first.")
            users = [one for one in self._models.endpoints(model) if one.spec.precision == version.precision]
            if users:
                told = ", ".join(f"{one.id} ({one.spec.name})" for one in users[:5])
                raise Conflict(f"Model {model.name} in {precision} is in use by {len(users)} endpoints: {told}.")
            gone = version.model_copy(update={"state": "failed", "reason": "it is being removed"})
            self._registry.put(gone)
        delete_version(self._store, version.prefix)
        with self._lock:
            current = self._registry.get(Version, version.id)
            if current is not None and current.state == "failed":  # else it is made anew meanwhile
                note = event(workspace, model.id, "version", f"{precision} is gone")
                self._registry.change(put=[note], delete=[current])
        return gone


def _job_name(precision: Quantized, model: Model) -> str:
    """A job's name has no dots."""
    return f"{precision}-{model.name.replace('.', '-')}"[:64]
