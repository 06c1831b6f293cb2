"""What other rules would have made of an endpoint's recorded minutes: `decide` again, on a fluid of requests.

Requests arrive evenly over a minute, and each takes a unit's place for as long as they took in that minute in the mean
(load / rate, by Little's law). What finds no place waits, and a unit that is called for runs `start_s` later.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.scaling import Rules, Signals, Timers, decide

TICK_S = 5.0
MINUTE_S = 60.0
_LEAST_S = 1e-3
"""A request takes no less."""
_NOTHING = 0.01
"""So little of a request, while none arrives, is none."""


@dataclass(frozen=True, slots=True)
class RecordedMinute:
    """What an endpoint had to do in a minute."""

    requests: float
    load: float
    """Requests that were present, waiting ones included, in the mean."""


@dataclass(frozen=True, slots=True)
class ImaginedMinute:
    """How it would have gone."""

    units: float
    """That ran, in the mean; those that only start are not among them."""
    waiting: float
    """Requests that waited, in the mean."""
    target: int
    """At the minute's end."""


def recorded_minute(figures: Mapping[str, float | None]) -> RecordedMinute:
    """From an endpoint's `service` figures. What no unit told of follows from how long its requests took."""
    requests = figures.get("requests") or 0.0
    present = (figures.get("running") or 0.0) + (figures.get("queue") or 0.0)
    took_s = max((figures.get("duration_ms") or 0.0) / 1000, _LEAST_S)
    return RecordedMinute(requests, present or requests * took_s / MINUTE_S)


def what_if(minutes: Sequence[RecordedMinute], rules: Rules, units: int, start_s: float) -> list[ImaginedMinute]:
    """The minutes, which follow on each other, under these rules; it begins with so many units."""
    fleet = _Fleet([-math.inf] * units)
    timers, present, now_s = Timers(), 0.0, 0.0
    imagined = []
    for minute in minutes:
        ran = waited = 0.0
        ticks = round(MINUTE_S / TICK_S)
        for _ in range(ticks):
            running = fleet.running(now_s)
            room = running * rules.concurrency
            present = _flowed(present, minute, room)
            placed = min(present, room)
            seen = Signals(now_s, placed, present - placed, 0.0, running, len(fleet.ready_at_s))
            decision = decide(seen, rules, timers)
            timers = decision.timers
            fleet.resize(decision.units, now_s + start_s)
            ran += running / ticks
            waited += (present - placed) / ticks
            now_s += TICK_S
        imagined.append(ImaginedMinute(ran, waited, len(fleet.ready_at_s)))
    return imagined


@dataclass(slots=True)
class _Fleet:
    """Units by when they run, the oldest first."""

    ready_at_s: list[float]

    def running(self, now_s: float) -> int:
        return sum(ready_at_s <= now_s for ready_at_s in self.ready_at_s)

    def resize(self, units: int, ready_at_s: float) -> None:
        self.ready_at_s = self.ready_at_s[:units] + [ready_at_s] * (units - len(self.ready_at_s))


def _flowed(present: float, minute: RecordedMinute, room: float) -> float:
    """How many requests are present one tick later."""
    rate = minute.requests / MINUTE_S
    if rate and present > room:
        return max(0.0, present + (rate - room * rate / minute.load) * TICK_S)
    if rate:
        settling = minute.load + (present - minute.load) * math.exp(-TICK_S * rate / minute.load)
        return settling if settling <= room else min(settling, present + rate * TICK_S)
    if present > max(minute.load, room, _NOTHING):  # a rest that waits, of which nobody knows how long it takes
        return present - room
    return minute.load  # none came or ended: the same ones are there all the time
