"""What a minute's figures are made of."""

import pytest

from app.core.figures import (
    MinuteFigures,
    growth,
    merged,
    resource_figures,
    router_counters,
    service_figures,
    unit_counters,
    unit_gauges,
)
from app.core.reports import EndpointReport, EngineStats, UnitReport


@pytest.mark.parametrize(
    ("before", "now", "grown"),
    [
        ({}, {"a": 3, "b": 0}, {"a": 3}),
        ({"a": 3, "b": 1}, {"a": 5, "b": 1}, {"a": 2}),
        ({"a": 3}, {"a": 3, "b": 2}, {"b": 2}),
        ({"a": 3, "b": 7}, {"a": 4, "b": 2}, {"a": 4, "b": 2}),  # begun again at zero, and `a` is past where it was
    ],
)
def test_counters_grow_or_begin_again(before: dict[str, float], now: dict[str, float], grown: dict[str, float]) -> None:
    assert growth(before, now) == grown


def test_a_minute_adds_counters_and_averages_gauges_over_time_then_sums_them_over_units() -> None:
    minute = MinuteFigures()
    minute.add({"requests_2xx": 2})
    minute.add({"requests_2xx": 1, "prompt_tokens": 10})
    for queue in (0, 4):
        minute.sample("one", {"queue": queue, "kv_cache_pct": 50, "memory_bytes": 100})
    minute.sample("two", {"queue": 1, "kv_cache_pct": 10, "memory_bytes": 30, "accelerator_pct": 70})
    assert minute.figures() == {
        "requests_2xx": 3,
        "prompt_tokens": 10,
        "units": 2,
        "samples": 2,
        "queue": 3,
        "memory_bytes": 130,
        "kv_cache_pct": 30,
        "accelerator_pct": 70,
    }


def test_two_parts_of_a_minute_make_one() -> None:
    first = {"requests_2xx": 3, "units": 2, "samples": 4, "queue": 1.0, "cpu_pct": 50.0}
    second = {"requests_2xx": 1, "requests_5xx": 1, "units": 1, "samples": 1, "queue": 6.0}
    whole = {"requests_2xx": 4, "requests_5xx": 1, "units": 2, "samples": 5, "queue": 2.0, "cpu_pct": 50.0}
    assert merged(first, second) == whole
    assert merged({}, first) == first
    assert merged(first, {}) == first


def test_what_routers_and_units_count_is_shown() -> None:
    router = EndpointReport(
        requests={"2xx": 5, "4xx": 2, "429": 1, "5xx": 3}, ttft_ms_sum=300, ttft_count=4, duration_ms_sum=900,
        duration_count=9, running=1, last_request_at=5,
    )  # fmt: skip
    engine = EngineStats(
        requests=5, prompt_tokens=100, completion_tokens=40, ttft_ms_sum=1, ttft_count=1, tpot_ms_sum=700,
        tpot_count=35, running=3, waiting=2, kv_cache_pct=12.5,
    )  # fmt: skip
    unit = UnitReport(started_at=1, engine=engine, up_s=59.96, cpu_pct=150.0, memory_bytes=1 << 30)
    minute = MinuteFigures()
    minute.add(router_counters(router))
    minute.add(unit_counters(unit))
    minute.sample("unit", unit_gauges(unit))
    assert service_figures(minute.figures()) == {
        "requests": 11,
        "errors": 3,
        "refused": 3,
        "ttft_ms": 75.0,
        "tpot_ms": 20.0,
        "duration_ms": 100.0,
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "running": 3.0,
        "queue": 2.0,
        "units": 1,
    }
    assert resource_figures(minute.figures()) == {
        "unit_s": 60.0,
        "cpu_pct": 150.0,
        "memory_bytes": 1 << 30,
        "accelerator_pct": None,
        "kv_cache_pct": 12.5,
    }


def test_what_nobody_measured_is_not_made_up() -> None:
    assert service_figures({"requests_5xx": 1})["ttft_ms"] is None
    assert service_figures({})["requests"] == 0
    unit_s, *rest = resource_figures({}).values()
    assert unit_s == 0
    assert set(rest) == {None}
