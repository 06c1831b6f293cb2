"""How many units an endpoint is to have: what holds of every decision, and cases one can follow by hand."""

import dataclasses
import json
import math
import timeit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core.scaling import (
    EXPLANATIONS,
    IN_VAIN_S,
    Decision,
    Rules,
    Signals,
    Timers,
    decide,
    decided_again,
    explain,
    journal_row,
)

LIMIT_US = 50
UNHURRIED = settings(deadline=None)

numbers = st.one_of(st.floats(), st.floats(0, 1e6), st.integers(0, 500).map(float))
loads = st.floats(0, 500)
moments = st.one_of(st.none(), numbers)
timers = st.builds(Timers, moments, moments, moments)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    step = draw(st.integers(1, 8))
    low = draw(st.integers(0, 4))
    high = draw(st.integers(max(1, low), 8))
    return Rules(
        min_units=low * step,
        max_units=high * step,
        step=step,
        concurrency=draw(st.floats(0.5, 100)),
        tokens_per_unit=draw(st.none() | st.floats(1, 1e6)),
        idle_to_zero_s=None if low else draw(st.none() | st.floats(1, 1e5)),
        down_after_s=draw(st.floats(0, 1000)),
        headroom=draw(st.floats(0.1, 1)),
    )


@st.composite
def anything(draw: st.DrawFn) -> Signals:
    units, target = draw(st.integers(-2, 80)), draw(st.integers(-2, 80))
    idle_s = draw(st.none() | numbers)
    return Signals(draw(numbers), draw(numbers), draw(numbers), draw(numbers), units, target, idle_s)


@st.composite
def settled(draw: st.DrawFn, given_rules: Rules) -> Signals:
    """An endpoint at a target that the rules allow, all of whose units run."""
    steps = st.integers(max(1, given_rules.min_units // given_rules.step), given_rules.max_units // given_rules.step)
    units = draw(steps) * given_rules.step
    return Signals(draw(st.floats(0, 1e9)), draw(loads), draw(loads), draw(st.floats(0, 1e6)), units, units)


def allowed(units: int, rules: Rules) -> bool:
    if units == 0:
        return rules.min_units == 0
    return units % rules.step == 0 and max(rules.min_units, rules.step) <= units <= rules.max_units


@UNHURRIED
@given(anything(), rules(), timers)
def test_whatever_is_seen_the_target_is_zero_or_a_multiple_in_the_range(seen: Signals, rules: Rules, timers: Timers):
    decision = decide(seen, rules, timers)
    assert allowed(decision.units, rules)
    assert {decision.rule, decision.bound} <= EXPLANATIONS.keys()
    for moment in dataclasses.astuple(decision.timers):
        assert moment is None or moment <= seen.at_s


@UNHURRIED
@given(anything(), rules(), timers)
def test_a_row_of_the_journal_gives_the_same_decision_again(seen: Signals, rules: Rules, timers: Timers):
    decision = decide(seen, rules, timers)
    row = json.loads(json.dumps(journal_row(seen, rules, timers, decision)))
    assert repr(decided_again(row)) == repr(decision)
    assert f"{row['from_units']} -> {decision.units} units" in explain(row)


@UNHURRIED
@given(st.data(), rules())
def test_fewer_units_still_carry_all_work_with_headroom(data: st.DataObject, rules: Rules):
    seen = data.draw(settled(rules))
    decision = decide(seen, rules, Timers(low_since_s=0.0))
    if not 0 < decision.units < seen.target:
        return
    assert (seen.running + seen.queued) <= decision.units * rules.concurrency * rules.headroom + 1e-6
    if rules.tokens_per_unit:
        assert seen.tokens <= decision.units * rules.tokens_per_unit * rules.headroom * (1 + 1e-6)


@UNHURRIED
@given(st.data(), rules())
def test_units_with_work_are_never_put_to_sleep(data: st.DataObject, rules: Rules):
    seen = data.draw(settled(rules))
    assume(seen.running + seen.queued > 0)
    assert decide(seen, rules, Timers(0.0, 0.0)).units > 0


@UNHURRIED
@given(st.data(), rules())
def test_more_units_carry_the_work_or_are_all_there_may_be(data: st.DataObject, rules: Rules):
    seen = data.draw(settled(rules))
    decision = decide(seen, rules, Timers())
    requests = seen.running + seen.queued
    assert decision.units * rules.concurrency * (1 + 1e-6) >= requests or decision.units == rules.max_units


@UNHURRIED
@given(st.data(), rules())
def test_under_steady_load_the_target_changes_at_most_once_up_and_once_down(data: st.DataObject, rules: Rules):
    seen = data.draw(settled(rules))
    assume(seen.running + seen.queued > 0)
    targets, timers = [seen.target], Timers()
    for second in range(200):
        target = targets[-1]
        now = dataclasses.replace(seen, at_s=seen.at_s + second * 60, units=target, target=target)
        decision = decide(now, rules, timers)
        timers = decision.timers
        if decision.units != target:
            targets.append(decision.units)
    assert len(targets) <= 2, targets


@UNHURRIED
@given(rules(), loads, st.lists(st.floats(-0.05, 0.05), min_size=50, max_size=50))
def test_a_load_that_trembles_does_not_make_units_come_and_go(rules: Rules, load: float, tremor: list[float]):
    assume(load >= 1)
    assume(rules.headroom <= 0.9)
    target, timers, ups, downs = max(rules.min_units, rules.step), Timers(), 0, 0
    for tick, share in enumerate(tremor * 4):
        seen = Signals(tick * 30.0, load * (1 + share), 0, 0, target, target)
        decision = decide(seen, rules, timers)
        ups, downs = ups + (decision.units > target), downs + (decision.units < target)
        target, timers = decision.units, decision.timers
    assert downs == 0
    assert ups <= -(-rules.max_units // rules.step)


def test_a_decision_takes_less_than_fifty_microseconds():
    busy = Rules(0, 64, 4, 16.0, 50_000.0, 300.0)
    seen = Signals(1e9, 100.0, 3.0, 90_000.0, 8, 32, 0.0)
    times_us = [
        timeit.timeit(lambda: decide(seen, busy, Timers(None, 1e9 - 10)), number=500) / 500e-6 for _ in range(9)
    ]
    assert min(times_us) < LIMIT_US, times_us


STEPS_OF_2 = Rules(0, 8, 2, concurrency=4, tokens_per_unit=1000, idle_to_zero_s=30, down_after_s=60)
AWAKE = Rules(2, 8, 2, concurrency=4, tokens_per_unit=1000, idle_to_zero_s=None, down_after_s=60)
PATIENT = dataclasses.replace(STEPS_OF_2, idle_to_zero_s=1200)
NONE = Timers()


def in_vain(since_s: float) -> Timers:
    return Timers(in_vain_since_s=since_s)


def seen(
    at_s: float = 100.0, *, running: float = 0, queued: float = 0, tokens: float = 0, units: int = 2, **more: float
):
    target = more.pop("target", units)
    return Signals(at_s, running, queued, tokens, units, int(target), **more)


CASES = [
    # what is seen, rules, timers -> units, rule, bound
    (seen(running=9), STEPS_OF_2, NONE, (4, "up", "requests")),
    (seen(running=8), STEPS_OF_2, NONE, (2, "hold", "requests")),
    (seen(running=2, queued=70), STEPS_OF_2, NONE, (8, "up", "max_units")),
    (seen(running=1, tokens=4500), STEPS_OF_2, NONE, (6, "up", "tokens")),
    (seen(running=20, target=6), STEPS_OF_2, NONE, (6, "hold", "requests")),  # four are starting
    (seen(units=0), STEPS_OF_2, NONE, (0, "asleep", "no_requests")),
    (seen(units=0, queued=50), STEPS_OF_2, NONE, (2, "wake", "first_unit")),
    (seen(units=0, target=2, queued=50), STEPS_OF_2, NONE, (2, "hold", "first_unit")),
    (seen(units=1, target=2, queued=50), STEPS_OF_2, NONE, (8, "up", "max_units")),
    (seen(units=0, target=2), STEPS_OF_2, Timers(0.0), (2, "hold", "min_units")),  # it starts: nobody is idle yet
    (seen(700.0, units=0, target=2), STEPS_OF_2, in_vain(100.1), (2, "hold", "min_units")),
    (seen(700.0, units=0, target=2), STEPS_OF_2, in_vain(100.0), (0, "sleep", "in_vain")),
    (seen(700.0, units=0, target=1), STEPS_OF_2, in_vain(100.0), (0, "sleep", "in_vain")),  # Ray's way down to zero
    (seen(700.0, units=1, target=1), STEPS_OF_2, in_vain(100.0), (2, "inside", "step")),  # on which a unit has come
    (seen(700.0, units=0, target=2, queued=1), STEPS_OF_2, in_vain(0.0), (2, "hold", "first_unit")),  # somebody waits
    (seen(700.0), STEPS_OF_2, in_vain(0.0), (2, "hold", "min_units")),
    (seen(700.0, units=0, target=2), PATIENT, in_vain(0.0), (2, "hold", "min_units")),
    (seen(700.0, units=0, target=2), AWAKE, in_vain(0.0), (2, "hold", "min_units")),
    (seen(), STEPS_OF_2, NONE, (2, "hold", "min_units")),
    (seen(), STEPS_OF_2, Timers(70.0), (0, "sleep", "idle_to_zero")),
    (seen(), STEPS_OF_2, Timers(70.1), (2, "hold", "min_units")),
    (seen(idle_s=30), STEPS_OF_2, Timers(70.0), (0, "sleep", "idle_to_zero")),
    (seen(idle_s=30), STEPS_OF_2, NONE, (2, "hold", "min_units")),  # there were requests just now, at a unit that left
    (seen(idle_s=500), STEPS_OF_2, Timers(90.0), (2, "hold", "min_units")),  # the unit with the last request has left
    (seen(idle_s=5), STEPS_OF_2, Timers(0.0), (2, "hold", "min_units")),  # a call too short to be sampled
    (seen(target=1, units=1), STEPS_OF_2, Timers(70.0), (0, "sleep", "idle_to_zero")),  # Ray's way down to zero
    (seen(target=1, units=0), STEPS_OF_2, Timers(70.0), (0, "sleep", "idle_to_zero")),
    (seen(target=1, units=1, queued=1), STEPS_OF_2, Timers(70.0), (2, "inside", "step")),
    (seen(), AWAKE, Timers(0.0), (2, "hold", "min_units")),
    (seen(units=0), AWAKE, NONE, (2, "inside", "min_units")),
    (seen(units=3), AWAKE, NONE, (4, "inside", "step")),
    (seen(units=12), AWAKE, NONE, (8, "inside", "max_units")),
    (seen(units=8, running=4), AWAKE, NONE, (8, "hold", "down_after")),
    (seen(units=8, running=4), AWAKE, Timers(None, 40.0), (2, "down", "requests")),
    (seen(units=8), AWAKE, Timers(None, 40.0), (2, "down", "min_units")),
    (seen(units=8, running=10), AWAKE, Timers(None, 40.0), (4, "down", "requests")),
    (seen(units=8, running=10, tokens=4000), AWAKE, Timers(None, 40.0), (6, "down", "tokens")),
    (seen(units=4, running=8), AWAKE, Timers(None, 40.0), (4, "hold", "requests")),  # 2 units without headroom
    (seen(units=8, running=4, queued=1), AWAKE, Timers(None, 40.0), (2, "down", "requests")),  # on its way to a unit
    (seen(units=1, target=8, running=4, queued=2), AWAKE, Timers(None, 40.0), (8, "hold", "queue")),
]


@pytest.mark.parametrize(("signals", "rules", "timers", "expected"), CASES)
def test_case(signals: Signals, rules: Rules, timers: Timers, expected: tuple[int, str, str]):
    decision = decide(signals, rules, timers)
    assert (decision.units, decision.rule, decision.bound) == expected


def test_going_down_needs_an_unbroken_while():
    timers, answers = Timers(), []
    for at_s, running in ((0, 1), (50, 1), (59, 30), (60, 1), (119, 1), (120, 1)):
        decision = decide(seen(float(at_s), units=8, running=running), AWAKE, timers)
        timers = decision.timers
        answers.append(decision.units)
    assert answers == [8, 8, 8, 8, 8, 2]


def test_who_waits_and_a_unit_that_comes_start_the_time_of_what_is_tried_in_vain_anew():
    timers, answers = Timers(), []
    for at_s, queued, units in ((100, 0, 0), (600, 1, 0), (601, 0, 0), (1100, 0, 2), (1101, 0, 0), (1701, 0, 0)):
        decision = decide(seen(float(at_s), queued=queued, units=units, target=2), STEPS_OF_2, timers)
        timers = decision.timers
        answers.append(decision.units)
    assert answers == [2, 2, 2, 2, 2, 0]
    assert timers.in_vain_since_s == 1701 - IN_VAIN_S


def test_a_clock_that_goes_back_only_makes_it_wait_longer():
    decision = decide(seen(10.0, units=8), AWAKE, Timers(None, 500.0))
    assert decision == Decision(8, "hold", "down_after", Timers(10.0, 10.0))


def test_numbers_that_cannot_be_count_as_nothing():
    nonsense = Signals(math.nan, math.inf, -3, math.nan, -1, -5, math.nan)
    assert decide(nonsense, STEPS_OF_2, Timers(math.nan, math.inf)).units == 0


def test_without_a_time_no_clock_runs():
    when = dataclasses.replace(seen(units=8), at_s=math.nan)
    assert decide(when, STEPS_OF_2, Timers(1.0, 1.0)) == Decision(8, "hold", "down_after", Timers())


@pytest.mark.parametrize(
    "change",
    [
        {"min_units": 1}, {"max_units": 7}, {"max_units": 0}, {"min_units": 10}, {"step": 0}, {"concurrency": 0},
        {"concurrency": math.nan}, {"tokens_per_unit": 0}, {"headroom": 0}, {"headroom": 1.1}, {"down_after_s": -1},
        {"min_units": 2}, {"idle_to_zero_s": 0},
    ],
)  # fmt: skip
def test_rules_that_no_target_could_satisfy_are_refused(change: dict[str, float]):
    with pytest.raises(ValueError, match=r"step|units|unit|headroom|idle"):
        dataclasses.replace(STEPS_OF_2, **change)


def test_a_row_of_a_later_version_can_still_be_read():
    row = journal_row(seen(running=9), STEPS_OF_2, NONE, decide(seen(running=9), STEPS_OF_2, NONE))
    row["signals"]["mood"] = 1
    assert decided_again(row).units == row["to_units"] == 4
    assert explain(row) == (
        "2 -> 4 units: more units for the load (running and waiting requests decide);"
        " 9 running, 0 waiting, 0 tokens, 2 of 2 units running"
    )
