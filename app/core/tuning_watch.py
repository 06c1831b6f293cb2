"""What is noticed of a training that runs: pure decisions from what it tells of itself."""

from dataclasses import dataclass

from app.core.job_specs import TrainingProgress
from app.core.records import Job

HANG_TIMES = 10.0
"""So many times the usual time of an iteration without one: it may hang."""
HANG_AT_LEAST_S = 300.0
"""Checkpoints and looks at the validation rows come between two iterations."""
HANGS = "it may hang: "
"""So the reason of a job begins that seems to hang."""


@dataclass(frozen=True)
class Pulse:
    """The last iteration that was seen, and since when."""

    iteration: int
    since_s: float


def feel(last: Pulse | None, seen: TrainingProgress, now_s: float) -> Pulse:
    """`now_s` by any clock that only goes forward."""
    return last if last is not None and last.iteration == seen.iteration else Pulse(seen.iteration, now_s)


def hang_reason(pulse: Pulse, seen: TrainingProgress, now_s: float) -> str:
    """Why it seems to hang; empty while it does not."""
    usual_s = seen.s_per_iteration or 0.0
    limit_s = max(HANG_AT_LEAST_S, HANG_TIMES * usual_s)
    if now_s - pulse.since_s <= limit_s:
        return ""
    # Told by the limit, not by the time that has passed: a reason that changes each second is written each second.
    return f"{HANGS}no iteration for more than {limit_s:.0f} s; one usually takes {usual_s:.3g} s"


def hangs(job: Job) -> bool:
    """Whether its record says so."""
    return job.state == "running" and job.reason.startswith(HANGS)


def auto_stop_reason(auto_stop_s: int | None, seen: TrainingProgress | None, before_s: float = 0.0) -> str:
    """Why it is to stop by itself; empty while it is not. What went before the first iteration does not count.

    `before_s`: how long it had trained when it was resumed.
    """
    if auto_stop_s is None or seen is None or seen.iterated_s - before_s < auto_stop_s:
        return ""
    return f"it has trained for {auto_stop_s} s, as auto_stop_s says"
