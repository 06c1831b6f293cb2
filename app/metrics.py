"""Every Prometheus metric, declared once, and how they become text.

Their values are counted elsewhere, in plain numbers; a family is made anew whenever somebody asks for the text.
"""

from collections.abc import Iterable

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

TTFT_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
DURATION_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


def requests() -> CounterMetricFamily:
    """By how they ended; the endpoint is empty where none was named rightly."""
    labels = ["router", "endpoint", "status"]
    return CounterMetricFamily("modelunit_requests", "Inference requests that ended, by status class.", labels=labels)


def ttft() -> HistogramMetricFamily:
    """Of streamed answers."""
    about = "From a request's arrival to the first bytes of its streamed answer."
    return HistogramMetricFamily("modelunit_time_to_first_token_seconds", about, labels=["router", "endpoint"])


def duration() -> HistogramMetricFamily:
    """Of all requests."""
    about = "From a request's arrival to its end."
    return HistogramMetricFamily("modelunit_request_duration_seconds", about, labels=["router", "endpoint"])


def running_requests() -> GaugeMetricFamily:
    """As routers see them: waiting for a unit or being answered."""
    return GaugeMetricFamily(
        "modelunit_running_requests", "Inference requests under way.", labels=["router", "endpoint"]
    )


def routing_table() -> GaugeMetricFamily:
    """Routers with different numbers for long do not hear the control plane."""
    return GaugeMetricFamily("modelunit_routing_table_number", "The routing table in use.", labels=["router"])


def usage_spool_bytes() -> GaugeMetricFamily:
    """Grows while the control plane is away."""
    return GaugeMetricFamily(
        "modelunit_usage_spool_bytes", "Usage that the control plane does not have yet.", labels=["router"]
    )


def usage_unwritten_requests() -> GaugeMetricFamily:
    """Not zero: the disk is full, or the spool as large as it may be."""
    return GaugeMetricFamily(
        "modelunit_usage_unwritten_requests", "Requests whose usage is only in memory.", labels=["router"]
    )


def usage_lost_requests() -> CounterMetricFamily:
    """Anything but zero is worth an alarm."""
    return CounterMetricFamily(
        "modelunit_usage_lost_requests", "Requests whose usage could not be kept.", labels=["router"]
    )


def _unit_counter(name: str, about: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"modelunit_unit_{name}", about, labels=["endpoint", "revision", "unit"])


def _unit_gauge(name: str, about: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"modelunit_unit_{name}", about, labels=["endpoint", "revision", "unit"])


def unit_answers() -> CounterMetricFamily:
    """Complete or not."""
    return _unit_counter("answers", "Answers of the unit's engine that ended.")


def unit_prompt_tokens() -> CounterMetricFamily:
    """Of answers that ended."""
    return _unit_counter("prompt_tokens", "Tokens of prompts that the unit's engine answered.")


def unit_completion_tokens() -> CounterMetricFamily:
    """Of answers that ended."""
    return _unit_counter("completion_tokens", "Tokens that the unit's engine made.")


def unit_ttft_sum() -> CounterMetricFamily:
    """Divided by the count: the mean, without the way through the router."""
    return _unit_counter("first_token_seconds", "Time to the first token of streamed answers, summed up.")


def unit_ttft_count() -> CounterMetricFamily:
    """See unit_ttft_sum."""
    return _unit_counter("first_tokens", "First tokens of streamed answers.")


def unit_tpot_sum() -> CounterMetricFamily:
    """Divided by the count: the mean time per token."""
    return _unit_counter(
        "further_tokens_seconds", "Time from the first to the last token of streamed answers, summed up."
    )


def unit_tpot_count() -> CounterMetricFamily:
    """See unit_tpot_sum."""
    return _unit_counter("further_tokens", "Tokens of streamed answers after their first.")


def unit_running() -> GaugeMetricFamily:
    """Those in the engine's batch."""
    return _unit_gauge("running", "Requests that the unit's engine computes.")


def unit_waiting() -> GaugeMetricFamily:
    """Those that found no room in the batch."""
    return _unit_gauge("waiting", "Requests that wait for the unit's engine.")


def unit_kv_cache() -> GaugeMetricFamily:
    """From 0 to 1."""
    return _unit_gauge("kv_cache_ratio", "How full the KV cache of the unit's engine is.")


def unit_cpu() -> GaugeMetricFamily:
    """1 is one core."""
    return _unit_gauge("cpu_cores", "CPU cores that the unit's processes keep busy.")


def unit_memory() -> GaugeMetricFamily:
    """Shared pages are divided among those that share them."""
    return _unit_gauge("memory_bytes", "Main memory of the unit's processes.")


def unit_accelerator() -> GaugeMetricFamily:
    """From 0 to 1, the mean of its cards."""
    return _unit_gauge("accelerator_ratio", "How busy the unit's accelerators are.")


def unit_accelerator_memory() -> GaugeMetricFamily:
    """On all of its cards together."""
    return _unit_gauge("accelerator_memory_bytes", "Memory used on the unit's accelerators.")


class _Families:
    """What prometheus-client calls a collector."""

    def __init__(self, families: Iterable[Metric]):
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> str:
    """The families as Prometheus reads them."""
    return generate_latest(_Families(families)).decode()


def merge(expositions: Iterable[str]) -> str:
    """One exposition of several: each family once, with the samples of all; of equal samples the first one counts."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, dict[str, str]] = {}
    for text in expositions:
        family = ""
        for line in text.splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2]
                headers.setdefault(family, [])
                if len(headers[family]) < 2 and line not in headers[family]:  # HELP and TYPE
                    headers[family].append(line)
            elif line:
                series, _, value = line.rpartition(" ")
                samples.setdefault(family, {}).setdefault(series, value)
    lines: list[str] = []
    for family, about in headers.items():
        lines += about
        lines += [f"{series} {value}" for series, value in samples.get(family, {}).items()]
    return "".join(f"{line}\n" for line in lines)
