"""Figures by minute: nothing is lost and nothing counted twice, whatever restarts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services import figures as figures_service
from app.control_plane.services.exposition import metrics_text
from app.core.errors import BadRequest, Superseded
from app.core.keys import hash_key
from app.core.records import ApiKey, Counted, Endpoint, EndpointMinute
from app.settings import Settings
from tests.control_plane.clocks import StandingClock
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, admin_key, by_name, change, spec
from tests.control_plane.reports import FakeRouter, report_unit


@pytest.fixture
def clock() -> StandingClock:
    """In the middle of a minute at first."""
    return StandingClock(datetime(2026, 1, 31, 9, 30, 20, tzinfo=UTC))


@pytest.fixture
def open_here(open_platform: OpenPlatform, clock: StandingClock) -> Callable[[], Platform]:
    """Opens the platform with its endpoint, once more if it is open."""

    def opened() -> Platform:
        platform = open_platform(spec("demo"), now=clock)
        platform.figures_loop.stop()  # its steps are taken by hand
        return platform

    return opened


@pytest.fixture
def platform(open_here: Callable[[], Platform]) -> Platform:
    return open_here()


def demo(platform: Platform) -> str:
    return by_name(platform)["demo"].id


def shown(platform: Platform, name: str, minutes: int = 60) -> list[float]:
    return [figures.get(name, 0.0) for _, figures in platform.figures.minutes(demo(platform), minutes)]


def kill(platform: Platform) -> None:
    """As `kill -9` does it: nothing more is written."""
    platform.figures.close = lambda: None  # type: ignore[method-assign]


def test_counters_become_minutes(platform: Platform, clock: StandingClock) -> None:
    router = FakeRouter("r1", clock())
    router.serve(demo(platform), clock(), s2xx=3, s5xx=1)
    router.report(platform.figures)
    router.report(platform.figures)  # the same once more: nothing has happened since
    assert shown(platform, "requests_2xx") == [3]
    clock.jump(seconds=60)
    router.serve(demo(platform), clock(), s2xx=2)
    router.report(platform.figures)
    platform.figures.step()
    assert shown(platform, "requests_2xx") == [3, 2]
    assert shown(platform, "requests_5xx") == [1, 0]
    assert len(platform.registry.find(EndpointMinute)) == 2


def test_a_router_that_starts_again_begins_at_zero(platform: Platform, clock: StandingClock) -> None:
    FakeRouter("r1", clock()).report(platform.figures)
    for started_at in (clock(), clock.jump(seconds=1)):
        router = FakeRouter("r1", started_at)
        router.serve(demo(platform), clock(), s2xx=5)
        router.report(platform.figures)
    assert shown(platform, "requests_2xx") == [10]


def test_an_endpoint_that_leaves_a_router_and_comes_back_counts_from_zero(
    platform: Platform, clock: StandingClock
) -> None:
    router = FakeRouter("r1", clock())
    router.serve(demo(platform), clock(), s2xx=5)
    router.report(platform.figures)
    router.endpoints = {}
    router.report(platform.figures)
    router.serve(demo(platform), clock(), s2xx=6)
    router.report(platform.figures)
    assert shown(platform, "requests_2xx") == [11]


def test_routers_add_up(platform: Platform, clock: StandingClock) -> None:
    for name in ("r1", "r2"):
        router = FakeRouter(name, clock())
        router.serve(demo(platform), clock(), s2xx=2)
        router.report(platform.figures)
    assert shown(platform, "requests_2xx") == [4]


@pytest.mark.parametrize("killed", [False, True])
def test_a_restart_neither_loses_nor_counts_twice(
    open_here: Callable[[], Platform], clock: StandingClock, killed: bool
) -> None:
    platform = open_here()
    router = FakeRouter("r1", clock())
    router.serve(demo(platform), clock(), s2xx=3)
    router.report(platform.figures)
    report_unit(platform.figures, demo(platform), engine={"waiting": 2})
    clock.jump(seconds=41)
    platform.figures.step()
    router.serve(demo(platform), clock(), s2xx=4)
    router.report(platform.figures)
    if killed:
        kill(platform)
    platform = open_here()
    assert shown(platform, "requests_2xx") == ([3] if killed else [3, 4])
    router.serve(demo(platform), clock(), s2xx=5)  # the router was there all the time
    router.report(platform.figures)
    assert sum(shown(platform, "requests_2xx")) == 12
    clock.jump(seconds=60)
    platform.figures.step()
    assert sum(shown(platform, "requests_2xx")) == 12
    assert shown(platform, "queue")[0] == 2


def test_two_halves_of_a_minute_are_one(open_here: Callable[[], Platform], clock: StandingClock) -> None:
    platform = open_here()
    for waiting in (1, 2, 3):
        report_unit(platform.figures, demo(platform), engine={"waiting": waiting, "prompt_tokens": 10})
    platform = open_here()
    report_unit(platform.figures, demo(platform), engine={"waiting": 6, "prompt_tokens": 15})
    assert shown(platform, "queue") == [3.0]
    assert shown(platform, "prompt_tokens") == [15]
    platform.figures.write()
    platform.figures.write()
    assert shown(platform, "queue") == [3.0]
    assert shown(platform, "prompt_tokens") == [15]


def test_a_clock_that_goes_back_adds_to_what_is_written(
    open_here: Callable[[], Platform], clock: StandingClock
) -> None:
    platform = open_here()
    router = FakeRouter("r1", clock())

    def serve(requests: int) -> None:
        router.serve(demo(platform), clock(), s2xx=requests)
        router.report(platform.figures)

    serve(3)
    for _ in range(3):
        clock.jump(seconds=60)
        platform.figures.step()
    clock.jump(seconds=-180)
    serve(2)
    platform.figures.step()
    serve(4)
    platform.figures.write()
    platform.figures.write()
    clock.jump(seconds=60)
    serve(1)
    platform.figures.step()
    clock.jump(seconds=60)
    platform.figures.step()
    assert [row.figures["requests_2xx"] for row in platform.registry.find(EndpointMinute)] == [9, 1]


def test_what_cannot_be_written_is_written_later(
    platform: Platform, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = FakeRouter("r1", clock())
    router.serve(demo(platform), clock(), s2xx=3)
    router.report(platform.figures)
    clock.jump(seconds=60)

    def refuse(*_: object) -> None:
        raise Superseded("another control plane has taken over")

    with monkeypatch.context() as patched:
        patched.setattr(platform.registry, "put", refuse)
        with pytest.raises(Superseded):
            platform.figures.step()
        platform.figures.close()  # which says so and goes on
    platform.figures.step()
    assert [row.figures["requests_2xx"] for row in platform.registry.find(EndpointMinute)] == [3]


def test_units_are_seen_as_long_as_they_report(platform: Platform, clock: StandingClock) -> None:
    report_unit(platform.figures, demo(platform), "unit1", engine={"running": 1, "kv_cache_pct": 10.0}, cpu_pct=50.0)
    report_unit(platform.figures, demo(platform), "unit2", engine={"running": 2, "kv_cache_pct": 30.0}, cpu_pct=70.0)
    assert shown(platform, "units") == [2]
    assert shown(platform, "running") == [3]
    assert shown(platform, "kv_cache_pct") == [20.0]
    assert shown(platform, "cpu_pct") == [120.0]
    assert [heard.unit for heard in platform.figures.units()] == ["unit1", "unit2"]
    clock.jump(seconds=30)
    report_unit(platform.figures, demo(platform), "unit2")
    clock.jump(seconds=10)
    assert [heard.unit for heard in platform.figures.units()] == ["unit2"]


def test_when_an_endpoint_was_called_last_is_written_down_with_the_minute(
    platform: Platform, clock: StandingClock
) -> None:
    called_at = clock()
    router = FakeRouter("r1", clock())
    router.serve(demo(platform), called_at, s4xx=1)
    router.report(platform.figures)
    late = FakeRouter("r2", clock())
    late.serve(demo(platform), called_at - timedelta(hours=1), s2xx=1)
    late.report(platform.figures)
    assert by_name(platform)["demo"].last_request_at is None
    clock.jump(seconds=60)
    platform.figures.step()
    assert by_name(platform)["demo"].last_request_at == called_at
    change(platform, by_name(platform)["demo"], last_request_at=clock())
    late.report(platform.figures)  # older news changes nothing
    clock.jump(seconds=60)
    platform.figures.step()
    assert by_name(platform)["demo"].last_request_at == clock() - timedelta(seconds=60)


def test_keys_that_were_used_are_noted(platform: Platform, clock: StandingClock, settings: Settings) -> None:
    key = hash_key(admin_key(settings))
    router = FakeRouter("r1", clock())
    router.keys = {key: clock().timestamp()}
    router.report(platform.figures)
    (record,) = platform.registry.find(ApiKey, hash=key)
    assert record.last_used_at == clock()


@ONE_DATABASE
def test_endpoints_that_are_gone_are_left_out(platform: Platform, clock: StandingClock) -> None:
    router = FakeRouter("r1", clock())
    router.serve("ep-gone", clock(), s2xx=3)
    router.serve(demo(platform), clock(), s2xx=1)
    router.report(platform.figures)
    report_unit(platform.figures, "ep-gone")
    platform.figures.write()
    assert {row.endpoint_id for row in platform.registry.find(EndpointMinute)} == {demo(platform)}


@ONE_DATABASE
def test_reporters_are_forgotten_after_a_day_unless_they_report(platform: Platform, clock: StandingClock) -> None:
    gone, quiet = FakeRouter("gone", clock()), FakeRouter("quiet", clock())
    for router in (gone, quiet):
        router.serve(demo(platform), clock(), s2xx=1)
        router.report(platform.figures)
    platform.figures.write()
    for _ in range(5):
        clock.jump(seconds=6 * 3600)
        quiet.report(platform.figures)
        platform.figures.write()
    assert [record.id for record in platform.registry.find(Counted)] == ["router quiet"]
    assert shown(platform, "requests_2xx", minutes=1440) == []  # nothing was counted again, and old minutes are old


@ONE_DATABASE
def test_there_is_a_bound_on_who_is_listened_to(
    platform: Platform, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_service, "MAX_REPORTERS", 2)
    for name in ("r1", "r2", "r3", "r1"):
        router = FakeRouter(name, clock())
        router.serve(demo(platform), clock(), s2xx=1)
        router.report(platform.figures)
    report_unit(platform.figures, demo(platform))
    assert shown(platform, "requests_2xx") == [2]
    assert platform.figures.units() == []


@ONE_DATABASE
def test_nonsense_is_refused(platform: Platform) -> None:
    for report in ("", "{}", '{"started_at": -1, "endpoints": {}, "keys": {}, "prometheus": ""}'):
        with pytest.raises(BadRequest):
            platform.figures.router_report("r1", report)
        with pytest.raises(BadRequest):
            platform.figures.unit_report("ep-1", "rev", "unit", report)


@ONE_DATABASE
def test_prometheus_hears_of_all_routers_and_units(platform: Platform, clock: StandingClock) -> None:
    head = "# HELP modelunit_requests_total Requests.\n# TYPE modelunit_requests_total counter\n"
    for name in ("r1", "r2"):
        router = FakeRouter(name, clock())
        router.prometheus = f'{head}modelunit_requests_total{{router="{name}"}} 3.0\n'
        router.report(platform.figures)
    report_unit(
        platform.figures, "ep-1", engine={"completion_tokens": 7, "tpot_ms_sum": 500.0, "tpot_count": 10},
        cpu_pct=150.0, accelerator_pct=50.0,
    )  # fmt: skip
    report_unit(platform.figures, "ep-1", "unit2")
    lines = metrics_text(platform.figures).splitlines()
    assert lines.count(head.splitlines()[0]) == 1
    assert 'modelunit_requests_total{router="r1"} 3.0' in lines
    assert 'modelunit_requests_total{router="r2"} 3.0' in lines
    of_unit = 'endpoint="ep-1",revision="rev-1",unit="unit1"'
    assert f"modelunit_unit_completion_tokens_total{{{of_unit}}} 7.0" in lines
    assert f"modelunit_unit_further_tokens_seconds_total{{{of_unit}}} 0.5" in lines
    assert f"modelunit_unit_cpu_cores{{{of_unit}}} 1.5" in lines
    assert f"modelunit_unit_accelerator_ratio{{{of_unit}}} 0.5" in lines
    assert [line for line in lines if "unit2" in line and "accelerator" in line] == []
    clock.jump(seconds=120)
    assert 'router="' not in metrics_text(platform.figures)
    assert "unit1" not in metrics_text(platform.figures)


async def test_metrics_of_an_endpoint(platform: Platform, clock: StandingClock, admin: httpx.AsyncClient) -> None:
    router = FakeRouter("r1", clock())
    router.serve(demo(platform), clock(), s2xx=3, s5xx=1, s429=2, ttft_ms=80.0)
    router.report(platform.figures)
    report_unit(
        platform.figures, demo(platform),
        engine={"waiting": 2, "completion_tokens": 30, "tpot_ms_sum": 900.0, "tpot_count": 27}, memory_bytes=1 << 30,
    )  # fmt: skip
    clock.jump(seconds=60)
    report_unit(platform.figures, demo(platform), cpu_pct=12.5)
    platform.figures.step()
    body = (await admin.get(f"/endpoints/{demo(platform)}/metrics")).json()
    assert body["object"] == "endpoint_metrics"
    assert [row["minute"] for row in body["service"]] == ["2026-01-31T09:30:00Z", "2026-01-31T09:31:00Z"]
    first, second = body["service"]
    assert (first["requests"], first["errors"], first["refused"], first["ttft_ms"]) == (6, 1, 2, 80.0)
    assert (first["tpot_ms"], first["completion_tokens"], first["queue"], first["units"]) == (33.33, 30, 2.0, 1)
    assert (second["requests"], second["ttft_ms"], second["units"]) == (0, None, 1)
    assert body["resources"][0]["memory_bytes"] == 1 << 30
    assert body["resources"][1]["cpu_pct"] == 12.5
    assert body["resources"][1]["accelerator_pct"] is None
    last = (await admin.get(f"/endpoints/{demo(platform)}/metrics", params={"minutes": 1})).json()
    assert [row["minute"] for row in last["service"]] == ["2026-01-31T09:31:00Z"]


@ONE_DATABASE
async def test_what_is_asked_for_wrongly(platform: Platform, admin: httpx.AsyncClient) -> None:
    for minutes in (0, 1441, "x"):
        answer = await admin.get(f"/endpoints/{demo(platform)}/metrics", params={"minutes": minutes})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "minutes"
    assert (await admin.get("/endpoints/ep-none/metrics")).status_code == 404


@ONE_DATABASE
async def test_another_workspaces_endpoint_is_not_there(platform: Platform, admin: httpx.AsyncClient) -> None:
    endpoint = platform.registry.get(Endpoint, demo(platform))
    assert endpoint
    made = await admin.post("/workspaces", json={"name": "other"})
    other = made.json()
    platform.registry.put(endpoint.model_copy(update={"id": "ep-other", "workspace": other["id"]}))
    for what in ("metrics", "logs"):
        assert (await admin.get(f"/endpoints/ep-other/{what}")).status_code == 404


def test_unit_time_is_counted_as_units_tell_it_and_stops_when_none_is_left(
    open_here: Callable[[], Platform], clock: StandingClock
) -> None:
    platform = open_here()
    report_unit(platform.figures, demo(platform), up_s=10.0)
    report_unit(platform.figures, demo(platform), up_s=20.0)
    report_unit(platform.figures, demo(platform), up_s=19.0)  # on its way for longer than the one after it
    report_unit(platform.figures, demo(platform), "unit2", up_s=5.0)
    assert shown(platform, "unit_s") == [25]
    platform.figures.write()
    kill(platform)
    platform = open_here()  # the same units go on; what they were up meanwhile is not lost
    clock.jump(seconds=60)
    report_unit(platform.figures, demo(platform), up_s=80.0)
    assert shown(platform, "unit_s") == [25, 60]
    for _ in range(3):  # asleep
        clock.jump(seconds=60)
        platform.figures.step()
    assert shown(platform, "unit_s") == [25, 60]
    report_unit(platform.figures, demo(platform), "unit3", up_s=10.0)
    assert shown(platform, "unit_s") == [25, 60, 10]
