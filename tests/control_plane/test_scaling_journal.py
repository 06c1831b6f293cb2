"""Decisions about scaling reach the registry from Ray's key-value store, each once, and are shown."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services.scaling_journal import PERIOD_S, ScalingJournal
from app.core.errors import Superseded, Unavailable
from app.core.lifecycle import Seen
from app.core.records import Endpoint, ScalingDecision
from app.core.scaling import Rules, Signals, Timers, decide, decided_again, explain, journal_row
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, by_name, spec, until
from tests.router.tables import Clock

RULES = Rules(0, 8, 2, concurrency=4.0, tokens_per_unit=None, idle_to_zero_s=60.0)

NOW_S = float(int(time.time()))
"""What is older than a month leaves."""


def at(unix_s: float) -> str:
    """As the API writes it."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def row(at_s: float, queued: float = 9.0) -> dict[str, Any]:
    signals = Signals(at_s=at_s, running=8.0, queued=queued, tokens=0.0, units=2, target=2)
    return journal_row(signals, RULES, Timers(), decide(signals, RULES, Timers()))


def leave(cluster: FakeCluster, endpoint_id: str, at_s: float, **changed: Any) -> None:
    """As app/unit/scaling_policy.py does it."""
    key = f"modelunit:scaling:{endpoint_id}:rev-1:{int(at_s * 1000)}"
    cluster.notes[key] = json.dumps(row(at_s) | changed).encode()


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def platform(open_platform: OpenPlatform, clock: Clock) -> Platform:
    return open_platform(spec("demo"), spec("other"), clock=clock)


@pytest.fixture
def demo(platform: Platform) -> str:
    return by_name(platform)["demo"].id


def read(platform: Platform, endpoint_id: str) -> list[ScalingDecision]:
    return list(platform.scaling_journal.find(endpoint_id))


@pytest.fixture
def collect(platform: Platform, cluster: FakeCluster, clock: Clock) -> Callable[[], None]:
    """Lets the platform's own loop do it, in its next step."""

    def collect() -> None:
        clock.now += PERIOD_S
        platform.endpoint_loop.nudge()
        until(lambda: not cluster.notes)

    return collect


async def test_a_decision_is_written_down_and_shown_with_all_that_it_followed_from(
    platform: Platform, cluster: FakeCluster, demo: str, admin: httpx.AsyncClient, collect: Callable[[], None]
) -> None:
    leave(cluster, demo, NOW_S + 0.25)
    collect()
    [shown] = (await admin.get(f"/endpoints/{demo}/scaling")).json()["data"]
    assert shown["at"] == at(NOW_S + 0.25)
    assert (shown["endpoint"], shown["revision"]) == (demo, "rev-1")
    assert (shown["from_units"], shown["to_units"], shown["rule"], shown["bound"]) == (2, 6, "up", "requests")
    assert shown["signals"]["queued"] == 9
    assert shown["rules"] == asdict(RULES)
    assert decided_again(shown) == decide(Signals(**shown["signals"]), RULES, Timers())
    assert explain(shown).startswith("2 -> 6 units: more units for the load")


async def test_the_list_has_pages_and_a_window(
    platform: Platform, cluster: FakeCluster, demo: str, admin: httpx.AsyncClient, collect: Callable[[], None]
) -> None:
    for second in range(5):
        leave(cluster, demo, NOW_S + second)
    leave(cluster, by_name(platform)["other"].id, NOW_S)
    collect()
    path = f"/endpoints/{demo}/scaling"
    first = (await admin.get(path, params={"page_size": 3})).json()
    rest = (await admin.get(path, params={"page_token": first["next_page_token"]})).json()
    whole = [one["at"] for one in first["data"] + rest["data"]]
    assert whole == sorted(whole)
    assert len(whole) == 5
    assert rest["next_page_token"] is None
    since = (await admin.get(path, params={"since": at(NOW_S + 3), "order": "desc"})).json()["data"]
    assert [one["at"] for one in since] == whole[:2:-1]
    refused = await admin.get(path, params={"page_token": "no"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "page_token")


async def test_an_endpoint_of_others_has_none(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/endpoints/ep-none/scaling")).status_code == 404


def test_what_is_read_twice_is_the_same_record(
    platform: Platform, cluster: FakeCluster, demo: str, collect: Callable[[], None]
) -> None:
    for _ in range(2):
        leave(cluster, demo, NOW_S)
        collect()
    assert len(read(platform, demo)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"to_units": -1},
        {"to_units": 1 << 40},
        {"rule": None},
        {"signals": "none"},
        {"rules": {"min_units": "none"}},
    ],
)
@ONE_DATABASE
def test_what_is_no_decision_holds_up_no_other(
    platform: Platform, cluster: FakeCluster, demo: str, changed: dict[str, Any], collect: Callable[[], None]
) -> None:
    leave(cluster, demo, NOW_S, **changed)
    leave(cluster, "ep-gone", NOW_S)
    leave(cluster, demo, NOW_S + 3)
    for key, value in {"x": b"{}", "a:b:c": b"{}", "a:b:1": b"[]", f"{demo}:r:{10**20}": b"{}"}.items():
        cluster.notes[f"modelunit:scaling:{key}"] = value
    collect()
    assert [decision.created_at.timestamp() for decision in read(platform, demo)] == [NOW_S + 3]


def test_a_signal_that_is_no_number_is_kept_as_none(
    platform: Platform, cluster: FakeCluster, demo: str, collect: Callable[[], None]
) -> None:
    signals = asdict(Signals(at_s=1.0, running=float("nan"), queued=float("inf"), tokens=0.0, units=2, target=2))
    leave(cluster, demo, NOW_S, signals=signals)
    collect()
    [decision] = read(platform, demo)
    assert (decision.signals["running"], decision.signals["queued"]) == (None, None)


@ONE_DATABASE
def test_the_journal_goes_with_its_endpoint(
    platform: Platform, cluster: FakeCluster, demo: str, collect: Callable[[], None], clock: Clock
) -> None:
    leave(cluster, demo, NOW_S)
    collect()
    with platform.lock:
        endpoint = platform.registry.get(Endpoint, demo)
        assert endpoint
        platform.registry.delete(endpoint)
    assert platform.registry.find(ScalingDecision) == []


RANGES = [
    # the range before, where the target is in it, the range after, and the row: from, to, bound
    ((1, 4), 1, (2, 4), (1, 2, "min_units")),
    ((1, 4), 3, (1, 2), (3, 2, "max_units")),
    ((0, 4), 0, (1, 4), (0, 1, "min_units")),
    ((1, 1), 1, (3, 3), (1, 3, "min_units")),
    ((3, 3), 3, (1, 1), (3, 1, "max_units")),
    ((1, 4), 3, (2, 2), (3, 2, "max_units")),
    ((1, 4), 2, (1, 3), None),
    ((0, 4), 0, (0, 2), None),
    ((2, 2), 2, (1, 4), None),
]


@ONE_DATABASE
@pytest.mark.parametrize(("before", "target", "after", "expected"), RANGES)
def test_where_serve_brings_a_target_into_another_range_is_written_down(
    open_platform: OpenPlatform,
    cluster: FakeCluster,
    before: tuple[int, int],
    target: int,
    after: tuple[int, int],
    expected: tuple[int, int, str] | None,
) -> None:
    platform = open_platform()
    for loop in platform.loops:
        loop.stop()
    made = platform.endpoints.create("default", spec("one", scale=scale(before)))
    platform.reconciler.step()
    [key] = cluster.applications
    cluster.applications[key] = replace(cluster.applications[key], running_units=target, target_units=target)
    platform.reconciler.step()
    platform.endpoints.patch("default", made.id, {"scale": scale(after)})
    for _ in range(2):
        platform.reconciler.step()
    assert cluster.deploys == [key, key]
    rows = read(platform, made.id)
    assert [(row.from_units, row.to_units, row.bound) for row in rows] == ([expected] if expected else [])
    for row in rows:
        again = decided_again(row.model_dump())
        assert (again.units, again.rule, again.bound) == (row.to_units, "inside", row.bound)


def scale(units: tuple[int, int]) -> dict[str, int]:
    return {"min_units": units[0], "max_units": units[1]}


@ONE_DATABASE
def test_a_journal_that_cannot_be_written_holds_up_no_change_in_place(
    platform: Platform, cluster: FakeCluster, demo: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    journal = journal_of(platform, cluster, clock)

    def refuse(*_: Any) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(platform.registry, "put", refuse)
    journal.changed_in_place(Seen(demo, "r", "running", target_units=9), RULES, datetime.now(UTC))


def journal_of(platform: Platform, cluster: FakeCluster, clock: Callable[[], float]) -> ScalingJournal:
    for loop in platform.loops:
        loop.stop()
    return ScalingJournal(platform.registry, cluster, platform.lock, clock)


@ONE_DATABASE
def test_it_looks_once_a_second_at_most(platform: Platform, cluster: FakeCluster, demo: str, clock: Clock) -> None:
    journal = journal_of(platform, cluster, clock)
    journal.collect()
    leave(cluster, demo, NOW_S)
    clock.now += 0.9
    journal.collect()
    assert cluster.notes
    clock.now += 0.1
    journal.collect()
    assert not cluster.notes


@ONE_DATABASE
def test_what_cannot_be_written_down_stays_where_it_is(
    platform: Platform, cluster: FakeCluster, demo: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    journal = journal_of(platform, cluster, clock)
    leave(cluster, demo, NOW_S)

    def refuse(*_: Any) -> None:
        raise Unavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(platform.registry, "put", refuse)
        journal.collect()
    assert cluster.notes
    clock.now += 1
    journal.collect()
    assert not cluster.notes
    assert len(read(platform, demo)) == 1


@ONE_DATABASE
def test_one_that_is_superseded_takes_nothing_away(platform: Platform, cluster: FakeCluster, demo: str) -> None:
    journal = journal_of(platform, cluster, Clock(100.0))
    leave(cluster, demo, NOW_S)
    assert platform.registry._epoch is not None
    platform.registry._epoch -= 1
    with pytest.raises(Superseded):
        journal.collect()
    assert cluster.notes
