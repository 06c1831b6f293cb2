"""How many units an endpoint is to have: one pure decision, made anew from what is seen now.

Serve's controller asks `decide` ten times a second, and every change of target is kept with what it was made from,
so that `decided_again` gives the same answer from a row of the journal. The standard library only: this file travels
to the controller inside the policy (app/unit/scaling_policy.py).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

HEARD_S = 5.0
"""For so long at most a request is seen after it has ended."""
CLEAR = 1e-9
"""What floating point may add to a load that fits exactly."""
IN_VAIN_S = 600.0
"""For so long at least units are tried that nobody waits for: to start one of a large model takes minutes.

Whoever waits for them is seen as a queued request, so it is only a wake that failed, or that found no room, which ends
so: Serve would try it for ever, and take the next place that comes free."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What is seen of an endpoint at one moment."""

    at_s: float
    running: float
    """Requests at units."""
    queued: float
    """Requests that wait in handles."""
    tokens: float
    """Of the prompts that units have in hand, about. What is made of them never passes by where this is counted, and
    is not among them."""
    units: int
    """That run. `target - units` more are starting and count as capacity."""
    target: int
    idle_s: float | None = None
    """Since the last request at any unit that runs, as the units tell it: they miss none, however short.

    None: not told, or none of them has had a request.
    """


@dataclass(frozen=True, slots=True)
class Rules:
    """What people set, and what a unit carries. Raises ValueError for what no target could satisfy."""

    min_units: int
    max_units: int
    step: int
    concurrency: float
    """Requests that one unit is meant to answer at once."""
    tokens_per_unit: float | None
    """That its KV cache holds, if that is known."""
    idle_to_zero_s: float | None
    down_after_s: float = 60.0
    headroom: float = 0.8
    """The share of its capacity that a smaller target may be loaded to; what is left keeps it from rising again."""

    def __post_init__(self) -> None:
        if self.step < 1 or self.min_units % self.step or self.max_units % self.step:
            raise ValueError(f"min_units and max_units must be multiples of the step ({self.step})")
        if not 0 <= self.min_units <= self.max_units or self.max_units < 1:
            raise ValueError(f"no units from {self.min_units} to {self.max_units}")
        if not self.concurrency > 0 or (self.tokens_per_unit is not None and not self.tokens_per_unit > 0):
            raise ValueError("a unit must carry something")
        if not 0 < self.headroom <= 1 or not self.down_after_s >= 0:
            raise ValueError("headroom must be above 0 and at most 1, down_after_s at least 0")
        if self.idle_to_zero_s is not None and (self.min_units or not self.idle_to_zero_s > 0):
            raise ValueError("idle_to_zero_s must be above 0 and needs min_units 0")


@dataclass(frozen=True, slots=True)
class Timers:
    """All that is remembered from one decision to the next."""

    idle_since_s: float | None = None
    low_since_s: float | None = None
    """Since when fewer units would do."""
    in_vain_since_s: float | None = None
    """Since when no unit runs though some are to, and nobody waits for one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next target, the rule that gave it and the bound that bit; EXPLANATIONS has the words of both."""

    units: int
    rule: str
    bound: str
    timers: Timers


def decide(signals: Signals, rules: Rules, timers: Timers) -> Decision:
    """The target that follows from `signals`: 0 or a multiple of the step in [min_units, max_units]. Never raises."""
    seen = cleaned(signals)
    requests = seen.running + seen.queued
    present, bound = _inside(seen.target, rules)
    clocks = _clocks(seen, rules, timers) if requests <= 0 and present > 0 else Timers()
    sleeps_after_s = math.inf if rules.idle_to_zero_s is None else rules.idle_to_zero_s

    if present == 0 and requests <= 0:
        return Decision(0, "asleep", "no_requests", Timers())
    if _is_over(sleeps_after_s, clocks.idle_since_s, seen.at_s):
        return Decision(0, "sleep", "idle_to_zero", clocks)
    if _is_over(max(sleeps_after_s, IN_VAIN_S), clocks.in_vain_since_s, seen.at_s):
        return Decision(0, "sleep", "in_vain", clocks)
    if seen.units == 0 and requests > 0:
        # Serve does not ask at all before the first unit runs: it starts one step, or keeps what it has.
        return Decision(max(present, rules.step), "hold" if present else "wake", "first_unit", Timers())

    need, signal = _need(seen, rules)
    wanted, bit = _multiple(need, rules)
    if wanted > present:
        return Decision(wanted, "up", bit or signal, clocks)
    if present != seen.target:
        return Decision(present, "inside", bound, clocks)
    return _downwards(seen, rules, clocks, timers.low_since_s, need, signal)


def _downwards(
    seen: Signals, rules: Rules, clocks: Timers, low_since_s: float | None, need: float, signal: str
) -> Decision:
    """Fewer units when all work fits into them with room to spare, and has done so for `down_after_s`."""
    fewer, bit = _multiple(need / rules.headroom, rules)
    if fewer >= seen.target:
        return Decision(seen.target, "hold", bit or signal, clocks)
    # A request on its way to a unit counts as queued for a moment; a queue stands where those that run have no room.
    room = seen.units * rules.concurrency * rules.headroom
    if seen.queued > 0 and seen.running + seen.queued > room:
        return Decision(seen.target, "hold", "queue", clocks)
    low_since = _since(seen.at_s, low_since_s)
    if low_since is None or seen.at_s - low_since < rules.down_after_s:
        timers = Timers(clocks.idle_since_s, low_since, clocks.in_vain_since_s)
        return Decision(seen.target, "hold", "down_after", timers)
    return Decision(fewer, "down", bit or signal, clocks)


def _clocks(seen: Signals, rules: Rules, timers: Timers) -> Timers:
    """Those that lead to sleep, where nobody calls: of units that run, and of units that do not come."""
    # Ray takes a step down from above 1 through 1: a target below the step is on its way to zero.
    idle = seen.units > 0 or seen.target < rules.step
    return Timers(
        idle_since_s=_idle_since(seen, timers.idle_since_s) if idle else None,
        in_vain_since_s=None if seen.units > 0 else _since(seen.at_s, timers.in_vain_since_s),
    )


def _need(seen: Signals, rules: Rules) -> tuple[float, str]:
    """Units that the present work fills, and the signal that asks for most of them."""
    by_requests = (seen.running + seen.queued) / rules.concurrency
    by_tokens = seen.tokens / rules.tokens_per_unit if rules.tokens_per_unit else 0.0
    return (by_tokens, "tokens") if by_tokens > by_requests else (by_requests, "requests")


def _multiple(need: float, rules: Rules) -> tuple[int, str]:
    """Whole steps for `need`, at least one and within the range; and the end of the range that bit, if one did."""
    if need > rules.max_units:
        return rules.max_units, "max_units"
    units, least = math.ceil(need / rules.step - CLEAR) * rules.step, max(rules.min_units, rules.step)
    return (least, "min_units") if units < least else (units, "")


def _inside(target: int, rules: Rules) -> tuple[int, str]:
    """`target` where the rules allow it, or the next that they allow, and the bound that moved it."""
    if target < rules.min_units:
        return rules.min_units, "min_units"
    if target > rules.max_units:
        return rules.max_units, "max_units"
    return -(-target // rules.step) * rules.step, "step"


def _idle_since(seen: Signals, since_s: float | None) -> float | None:
    """When the last request ended: what units tell, but never less than was known before.

    The unit that had it may be gone by now. Where nothing was known there were requests just now.
    """
    if seen.idle_s is None:
        return _since(seen.at_s, since_s)
    known = seen.at_s - HEARD_S if since_s is None else since_s
    return _since(seen.at_s, max(known, seen.at_s - seen.idle_s))


def _since(now_s: float, since_s: float | None) -> float | None:
    """When a clock that runs began to, at the latest now; None where nobody knows what time it is."""
    if not now_s:
        return None
    return now_s if since_s is None else min(now_s, since_s)


def _is_over(after_s: float, since_s: float | None, now_s: float) -> bool:
    """Whether a clock has run for so long."""
    return since_s is not None and now_s - since_s >= after_s


def cleaned(signals: Signals) -> Signals:
    """`signals` with 0 for every number that cannot be: NaN, infinite or negative."""
    at_s, running, queued, tokens, idle_s = (
        value if value is not None and 0.0 <= value < math.inf else 0.0
        for value in (signals.at_s, signals.running, signals.queued, signals.tokens, signals.idle_s)
    )
    told = None if signals.idle_s is None else idle_s
    return Signals(at_s, running, queued, tokens, max(0, signals.units), max(0, signals.target), told)


def journal_row(signals: Signals, rules: Rules, timers: Timers, decision: Decision) -> dict[str, Any]:
    """One change of target with all that it came from, as JSON values; `timers` as they were before it."""
    return {
        "at_s": signals.at_s,
        "signals": asdict(signals),
        "rules": asdict(rules),
        "timers": asdict(timers),
        "rule": decision.rule,
        "bound": decision.bound,
        "from_units": signals.target,
        "to_units": decision.units,
    }


def decided_again(row: Mapping[str, Any]) -> Decision:
    """What `decide` says today to a row of the journal. Raises ValueError for rules that are none."""
    return decide(
        Signals(**_known(Signals, row["signals"])),
        Rules(**_known(Rules, row["rules"])),
        Timers(**_known(Timers, row["timers"])),
    )


def _known(shape: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `values` that `shape` has: a row may have been written by a later version."""
    return {field.name: values[field.name] for field in fields(shape) if field.name in values}


EXPLANATIONS = {
    "asleep": "asleep, nobody calls",
    "sleep": "put to sleep",
    "wake": "woken by a request",
    "up": "more units for the load",
    "down": "fewer units carry the load",
    "inside": "brought into the allowed range",
    "hold": "left as it is",
    "no_requests": "no requests",
    "idle_to_zero": "no request for as long as idle_to_zero_s says",
    "in_vain": "no unit has come for minutes, and nobody waits",
    "first_unit": "until the first unit runs there is no more than what was begun",
    "requests": "running and waiting requests decide",
    "tokens": "tokens of prompts in hand decide",
    "queue": "requests wait that the running units have no room for",
    "down_after": "the load has not been low for as long as down_after_s says",
    "min_units": "min_units is reached, or one step",
    "max_units": "max_units is reached",
    "step": "units come in whole steps",
}


def explain(row: Mapping[str, Any]) -> str:
    """One line on a row of the journal for people."""
    seen, words = row["signals"], EXPLANATIONS
    return (
        f"{row['from_units']} -> {row['to_units']} units: {words.get(row['rule'], row['rule'])}"
        f" ({words.get(row['bound'], row['bound'])}); {seen['running']:g} running, {seen['queued']:g} waiting,"
        f" {seen['tokens']:g} tokens, {seen['units']} of {seen['target']} units running"
    )
