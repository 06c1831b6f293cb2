"""What leaves the platform after its time, by a clock that jumps."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.control_plane.platform import Platform
from app.control_plane.retention import BATCH, Kept, Retention
from app.core.records import (
    DEFAULT_WORKSPACE,
    AuditEntry,
    Endpoint,
    EndpointMinute,
    Event,
    Record,
    Replay,
    ScalingDecision,
    UsageHour,
    UsageSpool,
)
from app.store.database import Registry
from tests.control_plane.clocks import StandingClock
from tests.control_plane.platforms import ONE_DATABASE, spec, until

START = datetime.now(UTC)
"""Now: the database measures the age of audit entries by its own clock."""


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock(START)


def fill(registry: Registry, age: timedelta) -> None:
    """One record of each kind that goes by its age."""
    moment = START - age
    name = str(age)
    registry.put(
        Event(id=name, created_at=moment, workspace=DEFAULT_WORKSPACE, subject="old", kind="state", message=""),
        EndpointMinute(id=name, created_at=moment, endpoint_id="ep-1"),
        ScalingDecision(
            id=name, created_at=moment, endpoint_id="ep-1", revision="r", rule="up", from_units=1, to_units=2
        ),
        UsageHour(id=name, created_at=moment, day="", workspace=DEFAULT_WORKSPACE, endpoint_id="ep-1", key_id="key-1"),
        UsageSpool(id=name, created_at=moment, taken_bytes=1),
        Replay(id=name, created_at=moment, workspace=DEFAULT_WORKSPACE, body_hash="", record_id="ep-1"),
        AuditEntry(
            id=name,
            created_at=moment,
            workspace=DEFAULT_WORKSPACE,
            actor="key-1",
            request_id="",
            action="",
            subject="",
            status=202,
        ),
    )


def ages(registry: Registry, kind: type[Record]) -> set[timedelta]:
    return {START - record.created_at for record in registry.find(kind) if getattr(record, "subject", "old") != "ep-1"}


def test_everything_leaves_in_its_time(open_platform: Callable[..., Platform], clock: StandingClock) -> None:
    platform = open_platform(now=clock, events_kept_days=7)
    registry = platform.registry
    registry.put(Endpoint(id="ep-1", created_at=START, workspace=DEFAULT_WORKSPACE, spec=spec()))
    hours, days, months = timedelta(hours=23), timedelta(days=6), timedelta(days=399)
    for age in (timedelta(0), hours, days, months):
        fill(registry, age)

    assert platform.retention.step()
    assert ages(registry, EndpointMinute) == ages(registry, Replay) == {timedelta(0), hours}
    assert {timedelta(0), hours, days} <= ages(registry, Event)
    assert ages(registry, ScalingDecision) == {timedelta(0), hours, days}
    assert months not in ages(registry, Event)
    assert ages(registry, AuditEntry) == {timedelta(0), hours, days, months}

    clock.jump(hours=2)
    assert platform.retention.step()
    assert ages(registry, EndpointMinute) == ages(registry, Replay) == {timedelta(0)}

    clock.jump(days=6)
    assert platform.retention.step()
    assert ages(registry, EndpointMinute) == ages(registry, Replay) == set()
    assert timedelta(0) in ages(registry, Event)
    assert not {hours, days} & ages(registry, Event)

    clock.jump(days=24)
    assert platform.retention.step()
    assert ages(registry, ScalingDecision) == set()


def test_audit_entries_and_usage_leave_after_400_days(
    open_platform: Callable[..., Platform], clock: StandingClock
) -> None:
    registry = open_platform(now=clock).registry
    registry.put(Endpoint(id="ep-1", created_at=START, workspace=DEFAULT_WORKSPACE, spec=spec()))
    for age in (timedelta(days=399), timedelta(days=401)):
        fill(registry, age)
    platform = open_platform(now=clock)  # its loop looks at once
    for kind in (AuditEntry, UsageHour, UsageSpool):
        until(lambda kind=kind: ages(platform.registry, kind) == {timedelta(days=399)})  # type: ignore[misc]


def test_a_round_removes_one_batch_of_each_and_says_whether_more_is_left(platform: Platform) -> None:
    asked: list[tuple[str, datetime]] = []

    def drop(what: str, left: list[bool]) -> Kept:
        def drop_before(moment: datetime) -> bool:
            asked.append((what, moment))
            return left.pop(0)

        return Kept(what, timedelta(days=1), drop_before)

    retention = Retention([drop("a", [False, True]), drop("b", [True, True])], lambda: START)
    assert [retention.step(), retention.step()] == [False, True]
    assert asked == [(what, START - timedelta(days=1)) for what in "abab"]
    assert BATCH > 1


@ONE_DATABASE
def test_what_cannot_go_keeps_nothing_else(platform: Platform) -> None:
    def refuse(_: datetime) -> bool:
        raise RuntimeError("no")

    gone: list[datetime] = []

    def drop(moment: datetime) -> bool:
        gone.append(moment)
        return True

    retention = Retention([Kept("a", timedelta(1), refuse), Kept("b", timedelta(1), drop)], lambda: START)
    assert retention.step()
    assert gone == [START - timedelta(1)]
