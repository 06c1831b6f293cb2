"""What is noticed of a training that runs: pure decisions from what it tells of itself."""

from dataclasses import dataclass

from app.core.job_specs import TrainingProgress
from app.core.records import Job

HANG_TIMES = 10.0
"""So many times the usual time of an iteration without one: it hangs."""
_HANGS = "it may hang: "
HANG_AT_LEAST_S = 120.0
FIRST_ITERATION_S = 1800.0
"""How long the first iteration may take, whose usual time nobody knows: it may compile."""
WRITING_S = 1800.0
"""How long writing a checkpoint, or a look at the validation rows, may take."""


@dataclass(frozen=True)
class Pulse:
    """The last iteration that was seen, and since when."""

    iteration: int
    iterating: bool
    since_s: float


def feel(last: Pulse | None, seen: TrainingProgress, now_s: float) -> Pulse:
    """`now_s` by any clock that only goes forward."""
    if last is not None and (last.iteration, last.iterating) == (seen.iteration, seen.iterating):
        return last
    return Pulse(seen.iteration, seen.iterating, now_s)


def hang_reason(pulse: Pulse, seen: TrainingProgress, now_s: float) -> str:
    """Why it seems to hang; empty while it does not."""
    still_s = now_s - pulse.since_s
    if not pulse.iterating:
        limit_s, usual = WRITING_S, "a checkpoint or a validation is under way"
    elif seen.s_per_iteration is None:
        limit_s, usual = FIRST_ITERATION_S, "it is the first one"
    else:
        limit_s = max(HANG_AT_LEAST_S, HANG_TIMES * seen.s_per_iteration)
        usual = f"one usually takes {seen.s_per_iteration:.3g} s"
    # Told by the limit, not by the time that has passed: a reason that changes each second is an event each second.
    return f"{_HANGS}no iteration for more than {limit_s:.0f} s; {usual}" if still_s > limit_s else ""


def hangs(job: Job) -> bool:
    """Whether its record says so."""
    return job.state == "running" and job.reason.startswith(_HANGS)


def auto_stop_reason(auto_stop_s: int | None, seen: TrainingProgress | None) -> str:
    """Why it is to stop by itself; empty while it is not. What went before the first iteration does not count."""
    if auto_stop_s is None or seen is None or seen.iterated_s < auto_stop_s:
        return ""
    return f"it has trained for {auto_stop_s} s, as auto_stop_s says"
