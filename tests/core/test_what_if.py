"""Recorded minutes, decided upon by other rules."""

from dataclasses import replace

import pytest

from app.core.scaling import Rules
from app.core.what_if import RecordedMinute, recorded_minute, what_if

RULES = Rules(1, 4, 1, concurrency=10.0, tokens_per_unit=None, idle_to_zero_s=None)
SLEEPS = replace(RULES, min_units=0, idle_to_zero_s=120.0)
QUIET = RecordedMinute(0, 0)
LIGHT = RecordedMinute(requests=6, load=0.5)
STEADY = RecordedMinute(requests=60, load=5)


def busy(load: float) -> RecordedMinute:
    """Requests of ten seconds each."""
    return RecordedMinute(load * 6, load)


def test_a_steady_load_that_fits_keeps_its_unit_and_waits_for_nothing() -> None:
    for minute in what_if([STEADY] * 10, RULES, 1, 30.0):
        assert (minute.units, minute.waiting, minute.target) == (1, 0, 1)


def test_a_rising_load_gets_more_units_once_they_have_started() -> None:
    minutes = what_if([STEADY, busy(35), busy(35), busy(35), busy(35)], RULES, 1, 30.0)
    assert [minute.target for minute in minutes] == [1, 4, 4, 4, 4]
    assert minutes[1].waiting > 0
    assert minutes[1].units < 4
    assert minutes[-1].units == 4
    assert minutes[-1].waiting == pytest.approx(0, abs=0.5)
    slower = what_if([STEADY, busy(35), busy(35)], RULES, 1, 60.0)
    assert sum(minute.waiting for minute in slower) > sum(minute.waiting for minute in minutes[:3])


def test_fewer_units_let_work_pile_up() -> None:
    bounded = what_if([busy(35)] * 5, replace(RULES, max_units=2), 1, 30.0)
    waiting = [minute.waiting for minute in bounded]
    assert waiting == sorted(waiting)
    assert waiting[-1] > waiting[1] > 0
    assert {minute.target for minute in bounded} == {2}


def test_one_that_may_sleep_sleeps_when_nobody_calls_and_wakes_for_the_first() -> None:
    minutes = what_if([LIGHT, *[QUIET] * 5, LIGHT, LIGHT], SLEEPS, 1, 30.0)
    assert minutes[1].units == 1
    assert [minute.units for minute in minutes[4:6]] == [0, 0]
    assert 0 < minutes[6].units < 1
    assert minutes[6].waiting > 0
    assert minutes[7].units == 1
    assert minutes[7].waiting == pytest.approx(0, abs=0.5)
    kept = what_if([LIGHT, *[QUIET] * 5, LIGHT, LIGHT], RULES, 1, 30.0)
    assert {minute.units for minute in kept} == {1}
    assert sum(minute.waiting for minute in kept) == 0


def test_units_come_and_go_in_steps() -> None:
    rules = replace(SLEEPS, max_units=8, step=4)
    targets = {minute.target for minute in what_if([busy(1), busy(60), *[QUIET] * 6], rules, 0, 5.0)}
    assert targets == {0, 4, 8}


@pytest.mark.parametrize(
    ("figures", "recorded"),
    [
        ({"requests": 30, "running": 2.5, "queue": 1.5, "duration_ms": 1.0}, RecordedMinute(30, 4.0)),
        ({"requests": 30, "running": None, "queue": None, "duration_ms": 4000.0}, RecordedMinute(30, 2.0)),
        ({"requests": 6, "running": 0, "queue": 0, "duration_ms": None}, RecordedMinute(6, 1e-4)),
        ({}, QUIET),
    ],
)
def test_what_was_present_follows_from_units_or_else_from_how_long_requests_took(
    figures: dict[str, float | None], recorded: RecordedMinute
) -> None:
    found = recorded_minute(figures)
    assert found.requests == recorded.requests
    assert found.load == pytest.approx(recorded.load)


def test_a_day_takes_no_time() -> None:
    assert len(what_if([STEADY, QUIET] * 720, SLEEPS, 1, 30.0)) == 1440
