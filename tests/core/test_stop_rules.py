"""When endpoints stop and go by themselves: a record and a moment in, a decision out."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.records import Endpoint
from app.core.specs import EndpointSpec, ScaleSpec
from app.core.stop_rules import UNHEARD, Delete, IdleRule, Stop, Warn, auto_stop_at, due

MADE = datetime(2026, 2, 1, tzinfo=UTC)
WEEK = IdleRule(timedelta(days=7))
SECOND = timedelta(seconds=1)


def endpoint(min_units: int = 1, auto_stop_s: int | None = None, **fields: Any) -> Endpoint:
    spec = EndpointSpec(name="demo", model="m", scale=ScaleSpec(min_units=min_units), auto_stop_s=auto_stop_s)
    return Endpoint(id="ep-1", created_at=MADE, workspace="default", spec=spec, **fields)


def after(**time: float) -> datetime:
    return MADE + timedelta(**time)


def test_without_a_rule_nothing_is_ever_due() -> None:
    assert due(endpoint(state="healthy", running_since=MADE), after(days=10_000), WEEK) is None


@pytest.mark.parametrize("hours", [1, 2, 4, 6])
def test_auto_stop_counts_from_the_moment_that_it_serves(hours: int) -> None:
    prepares = endpoint(auto_stop_s=hours * 3600)
    assert auto_stop_at(prepares) is None
    assert due(prepares, after(days=100), WEEK) is None
    began = after(hours=20)
    serves = endpoint(auto_stop_s=hours * 3600, state="healthy", running_since=began)
    end = began + timedelta(hours=hours)
    assert auto_stop_at(serves) == end
    assert due(serves, end - SECOND, WEEK) is None
    assert due(serves, end, WEEK) == Stop(f"it has run for {hours * 3600} s, as auto_stop_s says")


@pytest.mark.parametrize("state", ["abnormal", "alarm", "upgrading", "scaling", "sleeping", "scheduling"])
def test_auto_stop_ends_what_has_served_whatever_became_of_it(state: Any) -> None:
    assert isinstance(due(endpoint(auto_stop_s=60, state=state, running_since=MADE), after(minutes=1), WEEK), Stop)


@pytest.mark.parametrize("state", ["stopped", "deleting"])
def test_what_rests_is_left_alone(state: Any) -> None:
    resting = endpoint(0, 60, state=state, running_since=MADE, idle_warned_at=MADE)
    assert due(resting, after(days=1000), WEEK) is None


def test_a_week_without_traffic_is_announced_a_day_before_and_then_deletes() -> None:
    quiet = endpoint(0, state="sleeping")
    assert due(quiet, after(days=6) - SECOND, WEEK) is None
    warning = due(quiet, after(days=6), WEEK)
    assert isinstance(warning, Warn)
    assert "2026-02-08 00:00 UTC" in warning.reason
    warned = quiet.model_copy(update={"idle_warned_at": after(days=6)})
    assert due(warned, after(days=7) - SECOND, WEEK) is None
    assert due(warned, after(days=7), WEEK) == Delete("nobody has called it since 2026-02-01 00:00 UTC")


@pytest.mark.parametrize("sign", ["last_request_at", "updated_at", "running_since"])
def test_any_sign_of_life_begins_the_week_again(sign: str) -> None:
    warned = endpoint(0, state="sleeping", idle_warned_at=after(days=6))
    alive = warned.model_copy(update={sign: after(days=6.5)})
    assert isinstance(due(warned, after(days=7), WEEK), Delete)
    assert due(alive, after(days=12.5) - SECOND, WEEK) is None
    assert isinstance(due(alive, after(days=12.5), WEEK), Warn)  # the old warning does not count any more
    assert isinstance(due(alive, after(days=100), WEEK), Warn)


def test_after_a_long_absence_of_the_platform_it_is_announced_first() -> None:
    quiet = endpoint(0, state="sleeping")
    warning = due(quiet, after(days=90), WEEK)
    assert isinstance(warning, Warn)
    assert "2026-05-03 00:00 UTC" in warning.reason
    warned = quiet.model_copy(update={"idle_warned_at": after(days=90)})
    assert due(warned, after(days=91) - SECOND, WEEK) is None
    assert isinstance(due(warned, after(days=91), WEEK), Delete)


@pytest.mark.parametrize("state", ["scheduling", "abnormal", "healthy", "sleeping"])
def test_what_never_served_goes_as_well(state: Any) -> None:
    assert isinstance(due(endpoint(0, state=state, idle_warned_at=after(days=6)), after(days=7), WEEK), Delete)


def test_what_keeps_a_unit_or_is_declared_in_a_file_stays() -> None:
    for stays in (endpoint(1, state="healthy"), endpoint(0, state="sleeping", managed_by="serve_config")):
        warned = stays.model_copy(update={"idle_warned_at": after(days=6)})
        assert due(stays, after(days=1000), WEEK) is due(warned, after(days=1000), WEEK) is None


def test_a_short_rule_warns_after_half_of_its_time() -> None:
    day = IdleRule(timedelta(days=1))
    quiet = endpoint(0, state="sleeping")
    assert due(quiet, after(hours=12) - SECOND, day) is None
    assert isinstance(due(quiet, after(hours=12), day), Warn)
    warned = quiet.model_copy(update={"idle_warned_at": after(hours=12)})
    assert due(warned, after(hours=24) - SECOND, day) is None
    assert isinstance(due(warned, after(hours=24), day), Delete)


def test_auto_stop_goes_before_deletion() -> None:
    both = endpoint(0, 60, state="sleeping", running_since=MADE, idle_warned_at=after(days=6))
    assert isinstance(due(both, after(days=8), WEEK), Stop)


def test_whoever_has_not_listened_for_a_while_deletes_nothing() -> None:
    """Requests may have come that nobody has told of yet; a warning does no harm."""
    warned = endpoint(0, state="healthy", idle_warned_at=after(days=6))
    now = after(days=30)
    assert due(warned, now, WEEK, heard_since=now - UNHEARD + SECOND) is None
    assert isinstance(due(warned, now, WEEK, heard_since=now - UNHEARD), Delete)
    assert isinstance(due(endpoint(0, state="healthy"), now, WEEK, heard_since=now), Warn)
    assert isinstance(due(endpoint(0, 60, state="healthy", running_since=MADE), now, WEEK, heard_since=now), Stop)
