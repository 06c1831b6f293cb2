"""Jobs: records of runs, and the files they are told and tell by."""

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from app.control_plane.services.events import event
from app.core.curves import Curve
from app.core.errors import Conflict, InvalidField, NotFound
from app.core.job_specs import JobOutcome, JobProgress, output_model_id
from app.core.jobs import UNFINISHED, quantize_task
from app.core.names import new_id
from app.core.records import Job, JobState, JobType, Model, Record, StopReason, Version
from app.core.tuning_spec import Notify
from app.store.database import Registry
from app.store.layout import JOB_CURVE, JOB_PROGRESS, JOB_STOP, job_object, newest_checkpoint, version_prefix
from app.store.object_store import ObjectMissing, ObjectStore
from app.store.removal import delete_version

AGAIN: tuple[JobState, ...] = ("stopped", "failed")
"""States from which a long job can go on."""


class Jobs:
    """The jobs of all workspaces. `changed()` wakes the loop that carries out wishes."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        lock: threading.RLock,
        changed: Callable[[], None],
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._store = store
        self._lock = lock
        self._changed = changed
        self._now = now
        self._leaving: set[str] = set()
        """Jobs whose files are being removed."""

    def new(self, type: JobType, model: Model, task: dict[str, Any], name: str = "", job_id: str = "") -> Job:
        """A job to be put; its process starts by and by. `task` lacks only the job's ID, which is a new one."""
        now = datetime.now(UTC)
        job_id = job_id or new_id("job", now)
        return Job(
            id=job_id,
            created_at=now,
            workspace=model.workspace,
            type=type,
            name=name or f"{type}-{model.name}"[:64],
            model_id=model.id,
            model_name=model.name,
            state="creating",
            spec={**task, "type": type, "job_id": job_id, "model_id": model.id},
        )

    def find(self, workspace: str, **equals: Any) -> list[Job]:
        """A workspace's jobs, oldest first."""
        return self._registry.find(Job, workspace=workspace, **equals)

    def of_model(self, model_id: str) -> list[Job]:
        """The jobs that worked on a model, oldest first."""
        return self._registry.find(Job, model_id=model_id)

    def unfinished(self) -> list[Job]:
        """All jobs that have not ended."""
        return self._registry.find(Job, state=UNFINISHED)  # asked once: else one that changes could be in it twice

    def get(self, workspace: str, job_id: str) -> Job:
        """One job. Raises NotFound."""
        job = self._registry.get(Job, job_id)
        if job is None or job.workspace != workspace:
            raise NotFound(f"There is no job {job_id}.")
        return job

    def stop(self, workspace: str, job_id: str) -> Job:
        """Wish it ended. Raises NotFound, and Conflict for one that has ended."""
        with self._lock:
            job = self.get(workspace, job_id)
            if job.state not in UNFINISHED:
                raise Conflict(f"This job is {job.state} already.")
            return self.ask_to_stop(job, "caller", "it was stopped")

    def ask_to_stop(self, job: Job, stop_for: StopReason, reason: str) -> Job:
        """Have an unfinished job end: a long one at its next checkpoint. To be called with the lock held."""
        asked_at = job.run.stop_asked_at or self._now()
        run = job.run.model_copy(update={"stop_for": stop_for, "stop_asked_at": asked_at})
        stopping = job.model_copy(update={"state": "stopping", "reason": reason, "run": run})
        self._registry.put(stopping, event(job.workspace, job.id, "stopping", reason))
        self._changed()
        return stopping

    def tell_to_stop(self, job: Job) -> None:
        """Let the process of a long job know."""
        self._store.write(job_object(job.id, JOB_STOP), b"{}")

    def forget_stop(self, job: Job) -> None:
        """Take back what a job was asked and how it ended, before it begins again; its checkpoints stay."""
        for name in ("outcome.json", JOB_STOP):
            self._store.delete(job_object(job.id, name))

    def delete(self, workspace: str, job_id: str) -> None:
        """Remove a finished job's record and files. Raises NotFound, and Conflict while it runs."""
        with self._lock:
            job = self.get(workspace, job_id)
            if job.state in UNFINISHED:
                raise Conflict(f"This job is {job.state}; stop it first.")
            self.require_staying(job)
            self._leaving.add(job.id)
        try:
            gone = self.delete_files(job)  # which takes a while, and the record stays until they are gone
            note = event(workspace, job.id, "deleted", f"the record of {job.name} is gone")
            with self._lock:
                gone = [record for record in gone if self._registry.get(type(record), record.id) == record]
                self._registry.change(put=[note], delete=[job, *gone])
        finally:
            self._leaving.discard(job.id)

    def require_staying(self, job: Job) -> None:
        """Raises Conflict for one that is being deleted. To be called with the lock held."""
        if job.id in self._leaving:
            raise Conflict("This job is being deleted.")

    def delete_files(self, job: Job) -> list[Record]:
        """Remove what a finished job was told and what it told, and what it has published and nobody has registered.

        Returns the records that go with it. Raises OSError while the object store is away.
        """
        for stored in list(self._store.list(job_object(job.id, ""))):
            self._store.delete(stored.name)
        if job.type == "finetune" and self._registry.get(Model, output_model_id(job.id)) is None:
            delete_version(self._store, version_prefix(output_model_id(job.id), "BF16"))
        return list(self._forget_version(job)) if job.type == "quantize" else []

    def _forget_version(self, job: Job) -> list[Version]:
        """Of a compression: its version, where it did not come to be."""
        task = quantize_task(job)
        model_id, own = task.output_model_id, task.spec.output_model_name is None
        prefix = version_prefix(model_id, task.precision)
        version = self._registry.get(Version, f"{model_id}:{task.precision}")
        if not own:
            if self._registry.get(Model, model_id) is None:
                delete_version(self._store, prefix)
            return []
        if version is None or version.state != "failed" or version.job_id != job.id:
            return []  # it is there, or another job's
        delete_version(self._store, prefix)
        return [version]

    def progress(self, job: Job) -> JobProgress:
        """How far it says it is."""
        with contextlib.suppress(ObjectMissing, ValueError):
            return JobProgress.model_validate_json(self._store.read(job_object(job.id, JOB_PROGRESS)))
        return JobProgress()

    def curve(self, job: Job) -> Curve:
        """What its training has gone through."""
        with contextlib.suppress(ObjectMissing, ValueError):
            return Curve.model_validate_json(self._store.read(job_object(job.id, JOB_CURVE)))
        return Curve()

    def checkpoint(self, job: Job) -> int:
        """The iteration from which its training can go on; 0: from the beginning."""
        return newest_checkpoint(self._store, job.id)

    def outcome(self, job: Job) -> JobOutcome | None:
        """How it says it ended, once it has."""
        with contextlib.suppress(ObjectMissing, ValueError):
            return JobOutcome.model_validate_json(self._store.read(job_object(job.id, "outcome.json")))
        return None


def require_no_topic(notify: Notify | None) -> None:
    """Raises InvalidField for a wish to be told of a job by a topic."""
    if notify is not None:
        raise InvalidField(
            "notify.topic names no topic of this workspace: there is none. What happens to a job is told by "
            "GET /platform/v1/events?subject=JOB.",
            "notify.topic",
        )
