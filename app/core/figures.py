"""Figures of endpoints by minute: what reports add, and how a minute is shown. Pure.

A minute's figures are one flat mapping. Counters are what happened in it. Gauges are means over the minute: of units
where that makes sense (KV cache, accelerators), else the sum over them (queue, CPU, memory).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.reports import STATUS_CLASSES, EndpointReport, UnitReport

Counters = Mapping[str, float]

_SUMMED = ("queue", "running", "cpu_pct", "memory_bytes")
_AVERAGED = ("kv_cache_pct", "accelerator_pct")
GAUGES = (*_SUMMED, *_AVERAGED)
UNITS = "units"
UNIT_S = "unit_s"
"""Counted as units tell it: time in which a unit was ready, so none while an endpoint sleeps."""
SAMPLES = "samples"
"""Of gauges that a minute has had; two halves of a minute are weighed by them."""


def router_counters(report: EndpointReport) -> dict[str, float]:
    """What a router has counted of one endpoint."""
    counters = {f"requests_{name}": float(report.requests.get(name, 0)) for name in STATUS_CLASSES}
    return counters | {
        "ttft_ms_sum": report.ttft_ms_sum,
        "ttft_count": report.ttft_count,
        "duration_ms_sum": report.duration_ms_sum,
        "duration_count": report.duration_count,
    }


def unit_counters(report: UnitReport) -> dict[str, float]:
    """What a unit has counted. Times to first tokens are the routers' to tell, as callers see them."""
    engine = report.engine
    return {
        UNIT_S: report.up_s,
        "prompt_tokens": engine.prompt_tokens,
        "completion_tokens": engine.completion_tokens,
        "tpot_ms_sum": engine.tpot_ms_sum,
        "tpot_count": engine.tpot_count,
    }


def unit_gauges(report: UnitReport) -> dict[str, float]:
    """How a unit is; what it does not know is left out."""
    gauges = {
        "queue": report.engine.waiting,
        "running": report.engine.running,
        "kv_cache_pct": report.engine.kv_cache_pct,
        "cpu_pct": report.cpu_pct,
        "memory_bytes": report.memory_bytes,
        "accelerator_pct": report.accelerator_pct,
    }
    return {name: float(value) for name, value in gauges.items() if value is not None}


def growth(before: Counters, now: Counters) -> dict[str, float]:
    """How much each counter has grown; where any of them has shrunk, all have begun again at zero."""
    again = any(value < before.get(name, 0.0) for name, value in now.items())
    grown = {name: value - (0.0 if again else before.get(name, 0.0)) for name, value in now.items()}
    return {name: value for name, value in grown.items() if value > 0}


@dataclass
class MinuteFigures:
    """What has been heard of one endpoint within one minute so far."""

    counters: dict[str, float] = field(default_factory=dict)
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Unit -> gauge -> its values. A unit tells a few times a minute."""

    def add(self, grown: Counters) -> None:
        """Counters have grown by so much."""
        for name, value in grown.items():
            self.counters[name] = self.counters.get(name, 0.0) + value

    def sample(self, unit: str, gauges: Mapping[str, float]) -> None:
        """A unit is like this now."""
        mine = self.samples.setdefault(unit, {})
        for name, value in gauges.items():
            mine.setdefault(name, []).append(value)

    def figures(self) -> dict[str, float]:
        """All of it in one mapping."""
        found = dict(self.counters)
        if self.samples:
            found[UNITS] = float(len(self.samples))
            found[SAMPLES] = float(
                max((len(values) for gauges in self.samples.values() for values in gauges.values()), default=1)
            )
        for name in GAUGES:
            means = [sum(gauges[name]) / len(gauges[name]) for gauges in self.samples.values() if name in gauges]
            if means:
                found[name] = sum(means) / (len(means) if name in _AVERAGED else 1)
        return found


def merged(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The figures of a minute of which two control planes have heard a part each."""
    found: dict[str, float] = {}
    for name in {**one, **other}:
        values = [(half[name], half.get(SAMPLES, 1.0)) for half in (one, other) if name in half]
        if name == UNITS:
            found[name] = max(value for value, _ in values)
        elif name in GAUGES:
            found[name] = sum(value * weight for value, weight in values) / sum(weight for _, weight in values)
        else:
            found[name] = sum(value for value, _ in values)
    return found


def service_figures(figures: Mapping[str, float]) -> dict[str, float | None]:
    """How an endpoint served its callers in a minute; None where there was nothing to measure."""
    counted = {name: int(figures.get(f"requests_{name}", 0)) for name in STATUS_CLASSES}
    return {
        "requests": sum(counted.values()),
        "errors": counted["5xx"],
        "refused": counted["4xx"] + counted["429"],
        "ttft_ms": _mean(figures, "ttft_ms"),
        "tpot_ms": _mean(figures, "tpot_ms"),
        "duration_ms": _mean(figures, "duration_ms"),
        "prompt_tokens": int(figures.get("prompt_tokens", 0)),
        "completion_tokens": int(figures.get("completion_tokens", 0)),
        "running": _rounded(figures, "running"),
        "queue": _rounded(figures, "queue"),
        "units": int(figures.get(UNITS, 0)),
    }


def resource_figures(figures: Mapping[str, float]) -> dict[str, float | None]:
    """What an endpoint's units used in a minute; None where nobody told."""
    memory = figures.get("memory_bytes")
    return {
        "unit_s": round(figures.get(UNIT_S, 0.0), 1),
        "cpu_pct": _rounded(figures, "cpu_pct"),
        "memory_bytes": None if memory is None else int(memory),
        "accelerator_pct": _rounded(figures, "accelerator_pct"),
        "kv_cache_pct": _rounded(figures, "kv_cache_pct"),
    }


def _mean(figures: Mapping[str, float], name: str) -> float | None:
    count = figures.get(f"{name.removesuffix('_ms')}_count", 0.0)
    return round(figures.get(f"{name}_sum", 0.0) / count, 2) if count else None


def _rounded(figures: Mapping[str, float], name: str) -> float | None:
    value = figures.get(name)
    return None if value is None else round(value, 2)
