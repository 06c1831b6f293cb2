"""What becomes of jobs and of models in preparation: pure decisions from what was seen."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.job_specs import JobOutcome, QuantizeTask, TuneTask
from app.core.records import Job, JobRun, JobState, JobType, Model

MAX_ATTEMPTS = 3
UNFINISHED: tuple[JobState, ...] = ("creating", "queued", "running", "stopping")
LONG: tuple[JobType, ...] = ("finetune", "quantize")
"""Types of jobs that take machines, are asked to stop before they are ended, and can go on afterwards."""

RunStatus = Literal["missing", "pending", "running", "succeeded", "failed", "stopped"]
"""Of a job process, as Ray has it; missing: Ray does not know it (its records go with the head node)."""


@dataclass(frozen=True)
class JobVerdict:
    """What a job is now, and whether its process should be started (again)."""

    state: JobState
    reason: str = ""
    submit: bool = False
    again: bool = False
    """It gave its place away: it is to wait for another."""


def judge(job: Job, status: RunStatus, message: str, outcome: JobOutcome | None, checkpoint: int = 0) -> JobVerdict:
    """What an unfinished job is now. Its own outcome counts for more than what Ray says of its process.

    `checkpoint` is the newest one's number: attempts that got further do not count against the most.
    """
    if outcome is not None and outcome.ok and (job.state != "stopping" or job.type in LONG):
        return JobVerdict("completed", outcome.reason)
    if job.state == "stopping":
        if outcome is None and status in ("pending", "running"):
            return JobVerdict("stopping", job.reason)
        if outcome is not None and not outcome.stopped and job.type in LONG:
            return JobVerdict("failed", outcome.reason)
        again = job.run.stop_for == "preemption"
        return JobVerdict("queued" if again else "stopped", job.reason, again=again)
    if outcome is not None:
        return JobVerdict("stopped" if outcome.stopped else "failed", outcome.reason)
    if status == "pending":
        return JobVerdict("queued", "it waits for a process")
    if status == "running":
        return JobVerdict("running")
    tries = job.attempts - job.run.attempts_before
    if tries == 0:
        return JobVerdict("queued", job.reason if job.attempts else "", submit=True)
    if status == "stopped":
        return JobVerdict("stopped", "it was stopped in Ray")
    if tries < MAX_ATTEMPTS or checkpoint > job.run.checkpoint_before:
        return JobVerdict("queued", "its process was lost; it begins again where it can", submit=True)
    return JobVerdict("failed", f"its process ended {tries} times without a result. {message}".strip())


def tune_task(job: Job) -> TuneTask:
    """What the process of a fine-tuning job is told."""
    return TuneTask.model_validate_json(json.dumps(job.spec))  # strict specs take their nested parts as JSON only


def quantize_task(job: Job) -> QuantizeTask:
    """What the process of a compression job is told."""
    return QuantizeTask.model_validate_json(json.dumps(job.spec))


def long_task(job: Job) -> TuneTask | QuantizeTask:
    """What the process of a LONG job is told."""
    return tune_task(job) if job.type == "finetune" else quantize_task(job)


def has_process(job: Job) -> bool:
    """Whether Ray was asked for one since the job was made, resumed or queued again."""
    return job.attempts > job.run.attempts_before


def begun(job: Job, checkpoint: int) -> JobRun:
    """How a job stands that gets its next process."""
    if checkpoint <= job.run.checkpoint_before:
        return job.run
    return job.run.model_copy(update={"attempts_before": job.attempts, "checkpoint_before": checkpoint})


def anew(job: Job) -> JobRun:
    """How a job stands that has no process and is to get one."""
    run = job.run
    return JobRun(
        attempts_before=job.attempts, checkpoint_before=run.checkpoint_before, trained_before_s=run.trained_before_s
    )


def resumed(job: Job) -> JobRun:
    """How a job stands that somebody wishes to go on: for `auto_stop_s` it begins again."""
    return anew(job).model_copy(update={"trained_before_s": job.metrics.get("iterated_s", 0.0)})


def submission_id(job: Job, attempt: int) -> str:
    """What Ray calls an attempt, counted from 1: the first has the job's own ID.

    An ID cannot be used again: the actor that watched over the attempt before may still hold its name.
    """
    return job.id if attempt <= 1 else f"{job.id}-{attempt}"


def standing(jobs: Sequence[Job]) -> str:
    """How far a model in preparation is, in a few words. `jobs`: the model's own, oldest first."""
    going = next((job for job in reversed(jobs) if job.state in UNFINISHED), None)
    if going is None or going.state != "running":
        return "waiting for a job"
    if going.type == "upload":
        return f"copying {math.floor(going.progress * 100)} %"
    if going.type == "quantize":
        return f"compressing {math.floor(going.progress * 100)} %"
    return "checking its weights" if going.type == "validate" else going.type


ModelStep = Literal["validate", "upload", "healthy", "failed", "wait"]


def next_step(model: Model, jobs: list[Job]) -> tuple[ModelStep, Job | None]:
    """What a model in preparation needs next, and the job that decided it: its last one.

    `jobs`: the model's own, oldest first.
    """
    assert model.spec is not None
    made = [job for job in jobs if job.type in ("validate", "upload")]
    if not made:
        return ("validate" if model.spec.validation else "upload"), None
    last = made[-1]
    if last.state in UNFINISHED:
        return "wait", last
    if last.state != "completed":
        return "failed", last
    return ("upload" if last.type == "validate" else "healthy"), last
