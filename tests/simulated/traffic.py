"""A week of callers: nights, ramps, plateaus, spikes, a steady stretch each day, and bursts at the edge of idle."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

HOUR_S, DAY_S = 3600.0, 86_400.0
WEEKDAYS = 5

WEEKDAY = (
    (0, 0.0),
    (7, 0.0),
    (9, 1.0),
    (12, 1.0),
    (12.2, 0.5),
    (13, 0.5),
    (16, 0.5),
    (16.1, 1.2),
    (18, 0.9),
    (22, 0.0),
)
WEEKEND = ((0, 0.0), (10, 0.0), (11, 0.05), (17, 0.05), (18, 0.0))
"""(hour, requests a second); straight lines in between."""
STEADY = (13.0, 16.0)
"""Hours of each weekday in which there is as much to do all the time."""
STEADY_GAP_S, STEADY_TOKENS = 1.0, 300
NIGHT_GAP_S = 2400.0
"""Between two callers who cannot sleep, in the mean."""
EDGE = (2.0, 3.5)
"""Hours of each night in which a caller comes back just as the endpoint is about to sleep."""
CROWD_AT = 5.5
"""The hour of each day of a weekend when, while it sleeps, more come at once than may wait."""
TOKENS_MEAN, TOKENS_MOST = 300, 900
IMPATIENT_PCT = 3


@dataclass(frozen=True, slots=True)
class Arrival:
    """A caller comes."""

    at_s: float
    """Since Monday, 0 o'clock."""
    tokens: int
    body_bytes: int
    waits: bool


def arrivals(seed: int, days: range) -> Iterator[Arrival]:
    """All of those days in order; the same for the same seed. Days are numbered from Monday, 0, on."""
    draws = random.Random(f"traffic {seed}")
    for day in days:
        yield from sorted(_day(draws, day), key=lambda arrival: arrival.at_s)


def _day(draws: random.Random, day: int) -> Iterator[Arrival]:
    start_s, works = day * DAY_S, day % 7 < WEEKDAYS
    profile = WEEKDAY if works else WEEKEND
    for at_s in _drawn(draws, profile, STEADY if works else (0.0, 0.0)):
        yield _arrival(draws, start_s + at_s)
    at_s = draws.expovariate(1 / NIGHT_GAP_S)
    while at_s < DAY_S:
        yield _arrival(draws, start_s + at_s)
        at_s += draws.expovariate(1 / NIGHT_GAP_S)
    if works:
        for number in range(int((STEADY[1] - STEADY[0]) * HOUR_S / STEADY_GAP_S)):
            at_s = STEADY[0] * HOUR_S + number * STEADY_GAP_S + draws.uniform(-0.3, 0.3)
            yield Arrival(start_s + at_s, STEADY_TOKENS, 2000, waits=True)
        for _ in range(60):  # a burst
            yield _arrival(draws, start_s + 16.75 * HOUR_S + draws.uniform(0, 5))
        for _ in range(1000):  # a wave of four minutes
            yield _arrival(draws, start_s + 17.25 * HOUR_S + draws.uniform(0, 240))
    else:
        for _ in range(150):
            yield _arrival(draws, start_s + CROWD_AT * HOUR_S + draws.uniform(0, 2))


def _drawn(
    draws: random.Random, profile: tuple[tuple[float, float], ...], pause: tuple[float, float]
) -> Iterator[float]:
    """Moments at the rates of the profile, as chance has it, none in the hours of the pause."""
    for (hour, rate), (next_hour, next_rate) in zip(profile, (*profile[1:], (24.0, 0.0)), strict=True):
        most = max(rate, next_rate)
        at_s, length_s = hour * HOUR_S, (next_hour - hour) * HOUR_S
        while most and (at_s := at_s + draws.expovariate(most)) < next_hour * HOUR_S:
            share = (at_s - hour * HOUR_S) / length_s
            kept = draws.random() * most < rate + (next_rate - rate) * share
            if kept and not pause[0] <= at_s / HOUR_S < pause[1]:
                yield at_s


def _arrival(draws: random.Random, at_s: float) -> Arrival:
    tokens = min(TOKENS_MOST, 20 + int(draws.expovariate(1 / TOKENS_MEAN)))
    return Arrival(at_s, tokens, draws.randrange(200, 8000), waits=draws.random() * 100 >= IMPATIENT_PCT)
