"""What Prometheus hears of all routers and all units, as far as they have told the control plane."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from app import metrics
from app.control_plane.services.figures import Figures, UnitHeard
from app.core.reports import UnitReport

Family = CounterMetricFamily | GaugeMetricFamily

_OF_UNITS: tuple[tuple[Callable[[], Family], Callable[[UnitReport], float | None]], ...] = (
    (metrics.unit_answers, lambda unit: unit.engine.requests),
    (metrics.unit_prompt_tokens, lambda unit: unit.engine.prompt_tokens),
    (metrics.unit_completion_tokens, lambda unit: unit.engine.completion_tokens),
    (metrics.unit_ttft_sum, lambda unit: unit.engine.ttft_ms_sum / 1000),
    (metrics.unit_ttft_count, lambda unit: unit.engine.ttft_count),
    (metrics.unit_tpot_sum, lambda unit: unit.engine.tpot_ms_sum / 1000),
    (metrics.unit_tpot_count, lambda unit: unit.engine.tpot_count),
    (metrics.unit_running, lambda unit: unit.engine.running),
    (metrics.unit_waiting, lambda unit: unit.engine.waiting),
    (metrics.unit_kv_cache, lambda unit: _hundredth(unit.engine.kv_cache_pct)),
    (metrics.unit_cpu, lambda unit: _hundredth(unit.cpu_pct)),
    (metrics.unit_memory, lambda unit: unit.memory_bytes),
    (metrics.unit_accelerator, lambda unit: _hundredth(unit.accelerator_pct)),
    (metrics.unit_accelerator_memory, lambda unit: unit.accelerator_memory_bytes),
)


def metrics_text(figures: Figures) -> str:
    """The exposition of every router that lives, as it gave it itself, and of every unit."""
    return metrics.merge([*figures.routers().values(), metrics.exposition(_families(figures.units()))])


def _families(units: Sequence[UnitHeard]) -> Iterator[Family]:
    for make, value_of in _OF_UNITS:
        family = make()
        for unit in units:
            value = value_of(unit.report)
            if value is not None:  # what a unit does not know has no sample
                family.add_metric([unit.endpoint_id, unit.revision, unit.unit], value)
        yield family


def _hundredth(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
