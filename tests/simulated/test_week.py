"""Days of an elastic endpoint in virtual time: nights, ramps, spikes, bursts at the edge of idle. One day of seven
here; `make soak` lives through the week, twice."""

import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from app.core.scaling import decided_again
from tests.simulated.findings import (
    asleep_too_early,
    awake_though_idle,
    between,
    changes_between,
    day_of,
    decided,
    figures,
    first_token_s,
    history,
    hour_of,
    idle_stretches,
    lost,
    odd_targets,
    percentile,
    picture,
    unit_hours,
)
from tests.simulated.traffic import CROWD_AT, DAY_S, EDGE, STEADY, WEEKDAYS
from tests.simulated.units import Request
from tests.simulated.world import DOWN_S, ENGINE, IDLE_S, MONDAY, MOST_UNITS, STEP, World, lived
from tests.soak import keep, record

SEED = 20260202
DAY = range(1, 2)
"""Tuesday."""
WEEK = range(7)
WEEK_MOST_S = 120.0

LONGEST_START_S = 1.5 + 0.3 + 1.2 * ENGINE.start_s + 1.0
"""Of a unit whose node has the weights."""
SETTLED_H = 0.2
NOTICED_S = 3.0
"""Reports, a turn of Serve's controller, and the way back to a handle."""


def check(world: World, days: range) -> None:
    """What holds of any days."""
    assert lost(world) == []
    targets = world.serve.targets
    assert odd_targets(targets) == []
    assert max(target for _, target in targets) <= MOST_UNITS
    assert awake_though_idle(world, slack_s=2.0) == []
    assert asleep_too_early(world) == []
    workdays = [day for day in days if day % 7 < WEEKDAYS]
    assert changes_between(targets, STEADY[0] + SETTLED_H, STEADY[1], workdays) == 0
    steady = between(world.requests, STEADY[0] + SETTLED_H, STEADY[1], workdays)
    assert max((request.first_token_s for request in steady), default=0.0) <= ENGINE.first_token_s + 0.001
    awake = first_token_s(world, woke=False)
    assert percentile(awake, 50) <= ENGINE.first_token_s + 0.001
    assert percentile(awake, 99) <= LONGEST_START_S + NOTICED_S
    woken = [request for request in world.requests if request.woke and not request.told_s and not in_crowd(request)]
    assert woken
    # The wave at the end of an afternoon may find all units busy; these find none.
    assert max(request.first_token_s for request in woken) <= LONGEST_START_S + NOTICED_S + ENGINE.first_token_s + 15


def in_crowd(request: Request) -> bool:
    """Whether it has to wait for its turn even when units run."""
    return day_of(request.begun_at_s) % 7 >= WEEKDAYS and 0 <= hour_of(request.begun_at_s) - CROWD_AT < 0.01


def check_journal(world: World) -> None:
    """Every change is in it, follows from what is written beside it, and comes when the rules allow it."""
    rows = world.journal()
    assert [row.to_units for row in rows] == decided(world.serve.targets)[1:]
    for row in rows:
        again = decided_again(row.model_dump())
        assert (again.units, again.rule, again.bound) == (row.to_units, row.rule, row.bound)
    moments = [(row.created_at.timestamp(), row.rule) for row in rows]
    for (before_s, _), (at_s, rule) in pairwise(moments):
        if rule == "down":
            assert at_s - before_s >= DOWN_S - 1


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with lived(tmp_path_factory.mktemp("day"), SEED, DAY) as world:
        yield world


def test_a_day_passes_without_a_lost_request_or_an_odd_target(day: World) -> None:
    assert len(day.requests) > 30_000
    check(day, DAY)


def test_every_change_of_the_day_is_in_the_journal_and_can_be_decided_again(day: World) -> None:
    check_journal(day)


def test_it_sleeps_at_night_and_costs_less(day: World) -> None:
    start_s = MONDAY + DAY.start * DAY_S
    night_h = unit_hours(day, start_s, start_s + 6 * 3600)
    assert night_h < 0.6 * STEP * 6  # somebody keeps it awake for an hour and a half of these six
    assert unit_hours(day, start_s, start_s + DAY_S) < 0.5 * 24 * max(target for _, target in day.serve.targets)


def test_requests_around_the_fall_to_sleep_find_it_awake_falling_and_asleep(day: World) -> None:
    """Or the trial would try nothing."""
    edge = [request for request in day.requests if request.then]
    assert {request.woke for request in edge} == {True, False}
    falls = [at_s for at_s, target in day.serve.targets if target in (0, 1) and EDGE[0] <= hour_of(at_s) < EDGE[1]]
    assert any(0 <= request.begun_at_s - at_s < 2.0 for request in edge for at_s in falls)


def test_a_spike_gets_more_units_and_a_full_queue_says_when_to_come_back(day: World) -> None:
    peak = max(target for at_s, target in day.serve.targets if 17.25 <= hour_of(at_s) < 17.5)
    assert peak == MOST_UNITS
    told = [request for request in day.requests if request.full]
    assert all(request.answered_at_s for request in told)


def test_who_is_told_when_to_come_back_finds_it_awake_then(day: World) -> None:
    told = [request for request in day.requests if not request.waits and request.told_s and not request.full]
    assert told
    again = [request for request in told if len(request.told_s) > 1]
    assert len(again) <= 0.1 * len(told) + 1


def test_the_day_can_be_looked_at(day: World) -> None:
    drawn = ET.fromstring(picture(day, DAY))
    lines = drawn.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3
    assert all(len(line.attrib["points"].split()) > 20 for line in lines)
    assert sum(since < until for since, until in idle_stretches(day.requests)) > 5
    assert IDLE_S > DOWN_S


def test_the_same_seed_gives_the_same_night_and_another_one_another(tmp_path: Path) -> None:
    histories = []
    for number, seed in enumerate((SEED, SEED, SEED + 1)):
        with lived(tmp_path / str(number), seed, range(5, 6)) as world:
            check(world, range(5, 6))
            assert any(request.full for request in world.requests)  # of the many at once
            histories.append(history(world))
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_week_passes_twice_in_the_same_way(tmp_path: Path) -> None:
    histories = []
    for number in range(2):
        began = time.monotonic()
        with lived(tmp_path / str(number), SEED, WEEK) as world:
            took_s = time.monotonic() - began
            check(world, WEEK)
            check_journal(world)
            histories.append(history(world))
            record("virtual_week", figures(world, WEEK) | {"took_s": round(took_s, 1)})
            keep("virtual_week.svg", picture(world, WEEK))
            for name, days in (("tuesday", range(1, 2)), ("sunday", range(6, 7))):
                keep(f"virtual_{name}.svg", picture(world, days))
        assert took_s < WEEK_MOST_S
    assert histories[0] == histories[1]
