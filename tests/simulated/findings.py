"""What is to be known of a world after its days: what became of requests, where units were, how long callers waited."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.simulated.plots import svg
from tests.simulated.traffic import DAY_S, HOUR_S
from tests.simulated.units import Request
from tests.simulated.world import IDLE_S, MONDAY, STEP, World

Steps = Sequence[tuple[float, int]]
HEARD_S = 2.5
"""Until the controller knows of a request."""


def lost(world: World) -> list[Request]:
    """Those that were not answered in full, once."""
    return [request for request in world.requests if request.tokens_got != request.tokens]


def percentile(values: Sequence[float], pct: float) -> float:
    """The value that so many percent are at most as large as; 0 of none."""
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * pct / 100))] if found else 0.0


def first_token_s(world: World, *, woke: bool) -> list[float]:
    """Of the requests that met no unit, or of the others; not of those that met a full queue before."""
    return [request.first_token_s for request in world.requests if request.woke == woke and not request.full]


def between(requests: Sequence[Request], start_hour: float, end_hour: float, days: Sequence[int]) -> list[Request]:
    """Those that came in these hours of these days."""
    return [r for r in requests if start_hour <= hour_of(r.begun_at_s) < end_hour and day_of(r.begun_at_s) in days]


def day_of(at_s: float) -> int:
    """From Monday, 0, on."""
    return int((at_s - MONDAY) // DAY_S)


def hour_of(at_s: float) -> float:
    """Of the day."""
    return (at_s - MONDAY) % DAY_S / HOUR_S


def odd_targets(targets: Steps) -> list[tuple[float, int]]:
    """Those that are no whole steps, but for 1 on the way down to 0, which lasts for one turn of Serve's controller."""
    odd = []
    for (at_s, target), (next_at_s, _) in pairwise([*targets, (float("inf"), 0)]):
        passage = target == 1 and next_at_s - at_s < 1.5
        if target % STEP and not passage:
            odd.append((at_s, target))
    return odd


def idle_stretches(requests: Sequence[Request]) -> Iterator[tuple[float, float]]:
    """(since, until) whenever nobody called."""
    busy = sorted((request.begun_at_s, request.answered_at_s or float("inf")) for request in requests)
    until_s = 0.0
    for begun_at_s, answered_at_s in busy:
        if begun_at_s > until_s:
            yield until_s, begun_at_s
        until_s = max(until_s, answered_at_s)
    yield until_s, float("inf")


def at(steps: Steps, at_s: float) -> int:
    """The value at that moment."""
    return next((value for moment_s, value in reversed(steps) if moment_s <= at_s), 0)


def awake_though_idle(world: World, slack_s: float) -> list[float]:
    """Moments at which the endpoint should have slept for so long, and did not.

    Of a request that a leaving unit answered only its handle tells, which the controller hears later than from units.
    """
    targets = world.serve.targets
    stretches = [
        (since_s + IDLE_S + slack_s + (HEARD_S if at(targets, since_s) == 0 else 0.0), until_s)
        for since_s, until_s in idle_stretches(world.requests)
    ]
    return [due_s for due_s, until_s in stretches if due_s < until_s and at(targets, due_s) != 0]


def asleep_too_early(world: World) -> list[float]:
    """Moments at which it was put to sleep before it had been idle for as long as it says.

    Or while somebody called of whom the controller must have heard by then.
    """
    stretches = list(idle_stretches(world.requests))
    return [
        at_s
        for at_s, target in world.serve.targets[1:]
        if target == 0
        and not any(since_s + IDLE_S - 0.1 <= at_s <= until_s + HEARD_S for since_s, until_s in stretches)
    ]


def decided(targets: Steps) -> list[int]:
    """What the policy wanted: Serve goes down to 0 through 1."""
    wanted = [0 if target == 1 else target for _, target in targets]
    return [target for before, target in pairwise([-1, *wanted]) if target != before]


def changes_between(targets: Steps, start_hour: float, end_hour: float, days: Sequence[int]) -> int:
    """How often the target changed in those hours of those days."""
    found = [at_s for at_s, _ in targets[1:] if start_hour <= hour_of(at_s) < end_hour]
    return sum(day_of(at_s) in days for at_s in found)


def unit_hours(world: World, start_s: float, end_s: float) -> float:
    """Hours that units ran, summed."""
    ran_s = 0.0
    for (at_s, units), (next_at_s, _) in pairwise([*world.serve.running, (end_s, 0)]):
        ran_s += units * max(0.0, min(end_s, next_at_s) - max(start_s, at_s))
    return ran_s / HOUR_S


def history(world: World) -> list[tuple[object, ...]]:
    """All that happened, to be compared."""
    requests = [(r.begun_at_s, r.first_token_at_s, r.answered_at_s, tuple(r.told_s)) for r in world.requests]
    return [*requests, *world.serve.targets, *world.serve.running]


def figures(world: World, days: range) -> dict[str, object]:
    """For the record."""
    start_s, end_s = MONDAY + days.start * DAY_S, MONDAY + days.stop * DAY_S
    awake, woken = first_token_s(world, woke=False), first_token_s(world, woke=True)
    return {
        "days": len(days),
        "requests": len(world.requests),
        "lost": len(lost(world)),
        "told_to_come_back": sum(bool(request.told_s) for request in world.requests),
        "target_changes": len(world.serve.targets) - 1,
        "sleeps": sum(target == 0 for _, target in world.serve.targets),
        "first_token_p50_s": round(percentile(awake, 50), 3),
        "first_token_p99_s": round(percentile(awake, 99), 3),
        "first_token_when_woken_p50_s": round(percentile(woken, 50), 3),
        "first_token_when_woken_max_s": round(max(woken, default=0.0), 3),
        "unit_hours": round(unit_hours(world, start_s, end_s), 1),
        "unit_hours_without_scaling": round(max(t for _, t in world.serve.targets) * (end_s - start_s) / HOUR_S, 1),
    }


def picture(world: World, days: range) -> str:
    """Load and units over the days, as SVG."""
    start_s, end_s = MONDAY + days.start * DAY_S, MONDAY + days.stop * DAY_S
    load, last = [], -1
    for minute, most in sorted(world.serve.loads.items()):
        if last >= 0 and minute > last + 1:
            load.append(((last + 1) * 60.0, 0.0))  # asleep, and nobody looked
        load.append((minute * 60.0, most))
        last = minute
    lines = {"running #2ca02c": world.serve.running, "target #d62728": world.serve.targets}
    panels = [("requests at once, most of each minute", {"load #1f77b4": load}), ("units", lines)]
    return svg(f"{len(world.requests)} requests, {len(world.serve.targets) - 1} changes", start_s, end_s, panels)
