"""Carries out jobs, brings models from `preparing` to `healthy` or `failed`, or away, and sweeps up, step by step."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from app.control_plane.long_runs import LongRuns
from app.control_plane.services.compression import Compression
from app.control_plane.services.events import event
from app.control_plane.services.job_logs import JobLogs
from app.control_plane.services.jobs import Jobs
from app.control_plane.services.models import Models
from app.control_plane.services.preparation import Preparation
from app.control_plane.services.tuning import Tuning
from app.core.job_specs import TRAINING, JobOutcome, JobProgress
from app.core.jobs import (
    LONG,
    UNFINISHED,
    JobVerdict,
    RunStatus,
    anew,
    begun,
    has_process,
    judge,
    long_task,
    next_step,
    submission_id,
)
from app.core.records import Job, JobRun, Model, Record
from app.core.specs import MachineType
from app.core.tuning_watch import hangs
from app.store.database import Registry
from app.store.layout import Manifest, job_object
from app.store.object_store import ObjectStore

MODULES = {
    "upload": "jobs.upload", "validate": "jobs.validate", "finetune": "jobs.finetune", "quantize": "jobs.quantize"
}  # fmt: skip
RETRY_S = 5.0
MAX_PROCESSES = 8
"""Of jobs at a time that take no machines; the others wait their turn."""
SWEEP_PERIOD_S = 3600.0

log = logging.getLogger("ray.serve")


class JobPort(Protocol):
    """What the loop needs of Ray; see app/control_plane/cluster.py."""

    def submit(self, submission_id: str, entrypoint: str, machine: MachineType | None = None) -> None: ...
    def run_status(self, submission_id: str) -> tuple[RunStatus, str]: ...
    def stop(self, submission_id: str) -> None: ...


class JobRunner:
    """Observe, decide, act, write down: one round per `step`."""

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        jobs: Jobs,
        logs: JobLogs,
        models: Models,
        preparation: Preparation,
        tuning: Tuning,
        compression: Compression,
        long_runs: LongRuns,
        cluster: JobPort,
        lock: threading.RLock,
        changed: Callable[[], None],
        clock: Callable[[], float],
    ):
        self._registry = registry
        self._store = store
        self._jobs = jobs
        self._logs = logs
        self._models = models
        self._preparation = preparation
        self._tuning = tuning
        self._compression = compression
        self._long_runs = long_runs
        self._cluster = cluster
        self._lock = lock
        self._changed = changed
        self._clock = clock
        self._sweep_at = clock()
        self._failed: dict[str, float] = {}
        """ID of a job or model whose last step failed -> when to try again."""

    def step(self) -> bool:
        """One round; returns whether nothing is left to wait for. One job's trouble never holds up another."""
        for model in self._models.in_state("preparing"):
            self._guarded(model.id, partial(self._prepare, model))
        every = self._jobs.unfinished()
        for job in self._long_runs.begin([job for job in every if job.type in LONG]):
            self._guarded(job.id, partial(self._run, job))
        unfinished = [job for job in every if job.type not in LONG]
        turn = [job for job in unfinished if job.attempts or job.state == "stopping"]
        turn += [job for job in unfinished if job not in turn][: max(0, MAX_PROCESSES - len(turn))]
        for job in turn:
            self._guarded(job.id, partial(self._run, job))
        for model in self._models.in_state("deleting"):
            self._guarded(model.id, partial(self._preparation.erase, model))
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + SWEEP_PERIOD_S  # also when it fails: it takes long where a store is away
            self._guarded("sweep", self._preparation.sweep)
        return not (self._jobs.unfinished() or self._models.in_state("preparing") or self._models.in_state("deleting"))

    def _guarded(self, what: str, action: Callable[[], None]) -> None:
        if self._clock() < self._failed.get(what, 0.0):
            return
        try:
            action()
            self._failed.pop(what, None)
        except Exception:
            log.exception("a step of %s failed; it is tried again in %g s", what, RETRY_S)
            self._failed[what] = self._clock() + RETRY_S

    def _prepare(self, model: Model) -> None:
        if model.spec is None:
            return
        step, job = next_step(model, self._jobs.of_model(model.id))
        outcome = self._jobs.outcome(job) if job and step != "wait" else None
        if step in ("validate", "upload"):
            self._preparation.begin(model, step, outcome)
        elif step == "healthy" and outcome:
            self._preparation.publish(model, outcome)
            self._changed()
        elif step == "failed" and job:
            self._preparation.fail(model, job.reason, outcome)
            self._changed()

    def _run(self, job: Job) -> None:
        outcome, progress = self._jobs.outcome(job), self._jobs.progress(job)
        status: RunStatus = "missing"
        message = ""
        if outcome is None and has_process(job):
            status, message = self._cluster.run_status(submission_id(job, job.attempts))
        long = job.type in LONG
        lost = long and has_process(job) and outcome is None and status not in ("pending", "running")
        checkpoint = self._jobs.checkpoint(job) if lost else 0
        verdict = judge(job, status, message, outcome, checkpoint)
        if job.state == "stopping" and status in ("pending", "running"):
            gently = long and status == "running"
            if not gently or self._long_runs.is_to_be_ended(job, progress):
                self._cluster.stop(submission_id(job, job.attempts))
        if long:
            verdict = self._as_long(job, verdict, progress)
        if verdict.submit:
            self._submit(job)
        if verdict.again:
            self._jobs.forget_stop(job)
        manifest = self._maker(job).published(job) if long and verdict.state == "completed" else None
        if verdict.state not in UNFINISHED:
            self._logs.keep(job)
        run = anew(job) if verdict.again else begun(job, checkpoint) if verdict.submit else job.run
        self._write_down(job, verdict, run, outcome, progress, manifest)

    def _as_long(self, job: Job, verdict: JobVerdict, progress: JobProgress) -> JobVerdict:
        if verdict.submit and (held := self._long_runs.held(job)):
            return replace(verdict, submit=False, reason=held)
        if verdict.state == "running":
            return replace(verdict, reason=self._long_runs.watch(job, progress))
        return verdict

    def _submit(self, job: Job) -> None:
        spec = job_object(job.id, "spec.json")
        self._store.write(spec, json.dumps(job.spec).encode())
        entrypoint, attempt = f"python -m {MODULES[job.type]} --spec {spec}", submission_id(job, job.attempts + 1)
        if job.type == "quantize":  # the process itself does the work; of a training its workers do
            self._cluster.submit(attempt, entrypoint, long_task(job).machine)
        else:
            self._cluster.submit(attempt, entrypoint)

    def _maker(self, job: Job) -> Tuning | Compression:
        return self._tuning if job.type == "finetune" else self._compression

    def _write_down(
        self,
        job: Job,
        verdict: JobVerdict,
        run: JobRun,
        outcome: JobOutcome | None,
        progress: JobProgress,
        manifest: Manifest | None,
    ) -> None:
        """`manifest`: of what a long job has published."""
        now = datetime.now(UTC)
        state = verdict.state
        told = progress.training or progress.compression
        works = state == "running" and (progress.phase == TRAINING or progress.training is None)
        attempts = job.attempts + verdict.submit
        update = {
            "state": state,
            "reason": verdict.reason,
            "attempts": attempts,
            "run": run,
            "progress": 1.0 if state == "completed" else progress.fraction,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "eta_s": told.eta_s if told and works else None,
            "metrics": outcome.metrics if outcome and outcome.metrics else told.metrics if told else job.metrics,
            "findings": outcome.findings if outcome else (),
            "started_at": job.started_at or (now if state == "running" else None),
            "finished_at": None if state in UNFINISHED else now,
        }
        with self._lock:
            current = self._registry.get(Job, job.id)
            if current is None or current.state not in UNFINISHED:
                return
            if current.state == "stopping" and state in UNFINISHED and current.run.stop_for != job.run.stop_for:
                # Somebody wished otherwise: a process that just began is ended next.
                update = {"attempts": attempts}
            made: list[Record] = []
            if job.type in LONG and state == "completed" and outcome:
                fields, made = self._maker(job).settled(job, outcome, manifest)
                update |= fields
            elif job.type == "quantize" and state in ("failed", "stopped"):
                made = self._compression.unsettled(job, verdict.reason)
            updated = current.model_copy(update=update)
            if updated == current:
                return
            changed = updated.state != current.state
            notes = [event(job.workspace, job.id, updated.state, updated.reason)] if changed else []
            if hangs(updated) and not hangs(current):
                notes.append(event(job.workspace, job.id, "hanging", updated.reason))
            self._registry.put(updated, *notes, *made)
        if made:
            self._changed()
