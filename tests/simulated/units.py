"""A unit with a simulated engine, in virtual time."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from app.unit.deployment import UnitSpec
from app.unit.phases import STARTING_ENGINE
from app.unit.scaling_policy import IDLE_S
from app.unit.work_in_hand import WorkInHand
from tests.simulated.events import Events

State = Literal["starting", "running", "leaving", "ended"]
KEPT_S = 5.0
"""How far back anybody asks what a unit had in hand."""


@dataclass(eq=False, slots=True)
class Request:
    """One caller's wish, until it is answered in full."""

    number: int
    begun_at_s: float
    tokens: int
    body_bytes: int
    waits: bool = True
    """False: the caller wants to hear at once when to come back, rather than wait for a unit."""
    then: "Callable[[Request], None] | None" = None
    """What follows on its answer."""
    woke: bool = False
    """It met no unit that ran."""
    asked_at_s: list[float] = field(default_factory=list)
    """Each time that it was sent."""
    told_s: list[int] = field(default_factory=list)
    """Each Retry-After that it got instead of an answer."""
    full: int = 0
    """How often the queue was full for it."""
    first_token_at_s: float | None = None
    answered_at_s: float | None = None
    tokens_got: int = 0

    @property
    def first_token_s(self) -> float:
        """From the try that was let through."""
        assert self.first_token_at_s is not None
        return self.first_token_at_s - self.asked_at_s[-1]


class Unit:
    """One replica: stages of a start, calls in hand, an engine that works on so many at a time, and a drain."""

    def __init__(self, events: Events, draws: random.Random, number: int, spec: UnitSpec, fetched: bool):
        """`fetched`: the weights are on its node already."""
        assert spec.simulation
        self.number = number
        self.name = f"unit-{number}"
        self.state: State = "starting"
        self.phase = ""
        self.begun_at_s = events.now_s
        self.calls: dict[Request, Any] = {}
        self._events = events
        self._spec = spec
        self._timing = spec.simulation
        self._waiting: deque[tuple[Request, Callable[[Request], None]]] = deque()
        self._working = 0
        self._told: list[tuple[float, dict[str, float], bool]] = []
        """(moment, what it says of itself, whether there were calls) whenever that changed."""
        self.stages = (
            ("", draws.uniform(0.5, 1.5)),
            ("checking weights", draws.uniform(0.1, 0.3) if fetched else draws.uniform(8.0, 12.0)),
            (STARTING_ENGINE, self._timing.start_s * draws.uniform(0.9, 1.2)),
            ("ready", draws.uniform(0.2, 1.0)),
        )
        """What it does until it runs, and for how long."""

    def start(self, changed: Callable[["Unit"], None]) -> None:
        """Go through the stages; `changed` is told of each, and that it runs."""
        self._stage(0, changed)

    def _stage(self, index: int, changed: Callable[["Unit"], None]) -> None:
        if self.state != "starting":
            return
        if index < len(self.stages):
            self.phase, takes_s = self.stages[index]
            self._events.after(takes_s, self._stage, index + 1, changed)
        else:
            self.state, self.phase = "running", ""
            self._work = WorkInHand(self._spec.max_model_len, self._events.clock)
            self._note()
        changed(self)

    def leave(self, drain_s: float, ended: Callable[["Unit"], None]) -> None:
        """Finish what it has in hand, for so long at most, and end."""
        self._ended = ended
        if self.state == "running" and self.calls:
            self.state = "leaving"
            self._events.after(drain_s, self._end)
        else:
            self._end()

    def take(self, request: Request, done: Callable[[Request], None]) -> None:
        """Work on a call; `done` is told when it is answered in full."""
        call = self.calls[request] = self._work.call(request.body_bytes)
        call.__enter__()
        self._note()
        if self._working < self._spec.max_num_seqs:
            self._begin(request, done)
        else:
            self._waiting.append((request, done))

    def told(self, at_s: float) -> dict[str, float]:
        """Tokens in hand and seconds without a call, as it said at that moment; nothing before it ran."""
        for moment_s, stats, busy in reversed(self._told):
            if moment_s <= at_s:
                idle = {IDLE_S: stats[IDLE_S] + (0.0 if busy else at_s - moment_s)} if IDLE_S in stats else {}
                return stats | idle
        return {}

    def _begin(self, request: Request, done: Callable[[Request], None]) -> None:
        self._working += 1
        request.first_token_at_s = self._events.now_s + self._timing.first_token_s
        takes_s = self._timing.first_token_s + request.tokens * self._timing.between_tokens_s
        self._events.after(takes_s if request.tokens else 0.0, self._finish, request, done)

    def _finish(self, request: Request, done: Callable[[Request], None]) -> None:
        if self.state == "ended":
            return
        self._working -= 1
        self.calls.pop(request).__exit__(None, None, None)
        self._note()
        request.tokens_got += request.tokens
        request.answered_at_s = self._events.now_s
        if self._waiting:
            self._begin(*self._waiting.popleft())
        if self.state == "leaving" and not self.calls:
            self._end()
        done(request)

    def _end(self) -> None:
        if self.state != "ended":
            self.state = "ended"  # whatever it still has in hand is never answered
            self._ended(self)

    def _note(self) -> None:
        stats, now_s = self._work.stats(), self._events.now_s
        self._told.append((now_s, stats, bool(self.calls)))
        forget(self._told, now_s)


def forget(told: list[Any], now_s: float) -> None:
    """Drop what nobody asks about any more of what was told; each entry begins with its moment."""
    if len(told) > 500:
        recent = next(i for i, entry in enumerate(told) if entry[0] > now_s - KEPT_S or i == 499)
        del told[: max(0, recent - 1)]
