"""What Prometheus hears of all routers and all units, as far as they have told the control plane."""

from collections.abc import Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from app import metrics
from app.control_plane.services.figures import Figures, UnitHeard
from app.core.reports import UnitReport


def metrics_text(figures: Figures) -> str:
    """The exposition of every router that lives, as it gave it itself, and of every unit."""
    return metrics.merge([*figures.routers().values(), metrics.exposition(_families(figures.units()))])


def _families(units: Sequence[UnitHeard]) -> Sequence[CounterMetricFamily | GaugeMetricFamily]:
    families: list[CounterMetricFamily | GaugeMetricFamily] = [
        metrics.unit_answers(),
        metrics.unit_prompt_tokens(),
        metrics.unit_completion_tokens(),
        metrics.unit_ttft_sum(),
        metrics.unit_ttft_count(),
        metrics.unit_tpot_sum(),
        metrics.unit_tpot_count(),
        metrics.unit_running(),
        metrics.unit_waiting(),
        metrics.unit_kv_cache(),
        metrics.unit_cpu(),
        metrics.unit_memory(),
        metrics.unit_accelerator(),
        metrics.unit_accelerator_memory(),
    ]
    for unit in units:
        labels = [unit.endpoint_id, unit.revision, unit.unit]
        for family, value in zip(families, _values(unit.report), strict=True):
            if value is not None:  # what a unit does not know has no sample
                family.add_metric(labels, value)
    return families


def _values(report: UnitReport) -> tuple[float | None, ...]:
    """In the order of the families."""
    engine = report.engine
    return (
        engine.requests,
        engine.prompt_tokens,
        engine.completion_tokens,
        engine.ttft_ms_sum / 1000,
        engine.ttft_count,
        engine.tpot_ms_sum / 1000,
        engine.tpot_count,
        engine.running,
        engine.waiting,
        _hundredth(engine.kv_cache_pct),
        _hundredth(report.cpu_pct),
        report.memory_bytes,
        _hundredth(report.accelerator_pct),
        report.accelerator_memory_bytes,
    )


def _hundredth(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
