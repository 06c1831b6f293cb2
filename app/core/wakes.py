"""Waking an endpoint: what callers may ask for, how far a start is, and how long it will still take."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from app.core.errors import InvalidField

Stage = Literal["place", "fetch", "load", "warm", "ready"]
"""What a start consists of, in this order: a place and a process, the weights, the engine, its first steps, Serve."""
STAGES: tuple[Stage, ...] = get_args(Stage)

WAKE_HEADER = "x-modelunit-wake"
TIMEOUT_HEADER = "x-modelunit-wake-timeout-s"
LONGEST_WAIT_S = 3600
UNKNOWN_S = 30
"""When to come back where nobody knows how long a start takes."""
_NO_ROOM = "waiting for "
"""Begins what is said of a unit that has no place: nobody knows when there will be one."""
_STAGE_BY_WORDS: tuple[tuple[str, Stage], ...] = (
    ("fetching weights", "fetch"),
    ("checking weights", "fetch"),
    ("starting the engine", "load"),
    ("warming up", "warm"),
    ("ready", "ready"),
)
_WHOLE_SECONDS = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class WakeWish:
    """What a caller wants where no unit runs: to wait so long, or to hear at once when to come back."""

    waits: bool = True
    timeout_s: float = 600.0


DEFAULT_WISH = WakeWish()


def wish_of(mode: str | None, timeout: str | None) -> WakeWish:
    """The wish in these headers; None: the header is not there. Raises InvalidField."""
    if mode not in (None, "wait", "fail"):
        raise InvalidField(f"{WAKE_HEADER} takes wait or fail.", WAKE_HEADER)
    if timeout is None:
        return WakeWish(waits=mode != "fail")
    if not _WHOLE_SECONDS.fullmatch(timeout) or not 1 <= int(timeout) <= LONGEST_WAIT_S:
        raise InvalidField(f"{TIMEOUT_HEADER} takes whole seconds from 1 to {LONGEST_WAIT_S}.", TIMEOUT_HEADER)
    return WakeWish(waits=mode != "fail", timeout_s=float(timeout))


def stage_of(phase: str) -> Stage:
    """The stage in which a unit is that says this of itself; nothing is said before it has a process."""
    return next((stage for words, stage in _STAGE_BY_WORDS if phase.startswith(words)), "place")


class WakeEstimate(BaseModel):
    """How long each stage of a start takes, in seconds; a stage that was never seen takes no time."""

    model_config = ConfigDict(frozen=True)

    phases: Mapping[Stage, float] = {}

    def left_s(self, phase: str = "", in_stage_s: float = 0.0) -> float | None:
        """Until a unit runs, which says `phase` now and has been in that stage for so long.

        None while it has no place, for nobody knows when it will.
        """
        if phase.startswith(_NO_ROOM):
            return None
        stage = stage_of(phase)
        later = STAGES[STAGES.index(stage) + 1 :]
        return max(0.0, self.phases.get(stage, 0.0) - in_stage_s) + sum(self.phases.get(name, 0.0) for name in later)


def typical(starts: Iterable[Mapping[Stage, float]]) -> WakeEstimate | None:
    """What to expect after these starts: the median of each stage; None after none."""
    known = list(starts)
    if not known:
        return None
    return WakeEstimate(phases={stage: round(median(start.get(stage, 0.0) for start in known), 1) for stage in STAGES})


def come_back_after_s(left_s: float | None) -> int:
    """The Retry-After for an endpoint that is awake after so long; None: nobody knows."""
    return UNKNOWN_S if left_s is None else max(1, math.ceil(left_s))


def heartbeat(phase: str, left_s: float | None) -> bytes:
    """The comment that a waiting stream gets: no client of server-sent events hands it on."""
    words = " ".join(phase.split()) or "finding a place for a unit"
    left = "" if left_s is None else f", about {come_back_after_s(left_s)} s left"
    return f": waking, {words}{left}\n\n".encode()


STILL_WAITING = b": waiting for the first token\n\n"
"""The comment once a unit runs: the stream has begun, so something has to come now and then."""
