"""What becomes of jobs and of models in preparation: pure decisions from what was seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.job_specs import JobOutcome
from app.core.records import Job, JobState, Model

MAX_ATTEMPTS = 3
UNFINISHED: tuple[JobState, ...] = ("creating", "queued", "running", "stopping")

RunStatus = Literal["missing", "pending", "running", "succeeded", "failed", "stopped"]
"""Of a job process, as Ray has it; missing: Ray does not know it (its records go with the head node)."""


@dataclass(frozen=True)
class JobVerdict:
    """What a job is now, and whether its process should be started (again)."""

    state: JobState
    reason: str = ""
    submit: bool = False


def judge(job: Job, status: RunStatus, message: str, outcome: JobOutcome | None) -> JobVerdict:
    """What an unfinished job is now. Its own outcome counts for more than what Ray says of its process."""
    if job.state == "stopping":
        ended = outcome is not None or status not in ("pending", "running")
        return JobVerdict("stopped" if ended else "stopping", job.reason)
    if outcome is not None:
        return JobVerdict("completed" if outcome.ok else "failed", outcome.reason)
    if status == "pending":
        return JobVerdict("queued")
    if status == "running":
        return JobVerdict("running")
    if status == "stopped":
        return JobVerdict("stopped", "it was stopped in Ray")
    if job.attempts == 0:
        return JobVerdict("queued", submit=True)
    if job.attempts < MAX_ATTEMPTS:
        return JobVerdict("queued", "its process was lost; it begins again where it can", submit=True)
    return JobVerdict("failed", f"its process ended {job.attempts} times without a result. {message}".strip())


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
