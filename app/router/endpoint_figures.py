"""What a router counts of one endpoint: how its requests ended, and how long they took."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import Metric

from app import metrics
from app.core.reports import STATUS_CLASSES, EndpointReport, StatusClass, status_class


class Histogram:
    """How many durations fell below each bound, in seconds."""

    def __init__(self, bounds_s: Sequence[float]):
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: how many are at most each bound."""
        names = [*(f"{bound:g}" for bound in self._bounds_s), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


class EndpointFigures:
    """Of one endpoint, since this router started."""

    def __init__(self) -> None:
        self.requests: dict[StatusClass, int] = dict.fromkeys(STATUS_CLASSES, 0)
        self.ttft = Histogram(metrics.TTFT_BUCKETS_S)
        self.duration = Histogram(metrics.DURATION_BUCKETS_S)
        self.running = 0
        self.last_request_at = 0.0
        self.changes = 0
        """Grows whenever anything is counted."""
        self._exposition = (-1, "")

    def arrived(self, at: float) -> None:
        """A request came at this Unix time; it runs until it has ended."""
        self.running += 1
        self.last_request_at = at
        self.changes += 1

    def first_bytes(self, after_s: float) -> None:
        """A streamed answer begins."""
        self.ttft.add(after_s)
        self.changes += 1

    def ended(self, status: int, after_s: float) -> None:
        """A request that had arrived is over."""
        self.running -= 1
        self.requests[status_class(status)] += 1
        self.duration.add(after_s)
        self.changes += 1

    def report(self) -> EndpointReport:
        """What the control plane hears of it."""
        return EndpointReport(
            requests=self.requests.copy(),
            ttft_ms_sum=self.ttft.sum_s * 1000,
            ttft_count=self.ttft.count,
            duration_ms_sum=self.duration.sum_s * 1000,
            duration_count=self.duration.count,
            running=self.running,
            last_request_at=self.last_request_at,
        )

    def exposition(self, *labels: str) -> str:
        """For Prometheus; made anew only when something has changed, for making it costs half a millisecond."""
        if self._exposition[0] != self.changes:
            self._exposition = (self.changes, metrics.exposition(self._families(labels)))
        return self._exposition[1]

    def _families(self, labels: Sequence[str]) -> Iterable[Metric]:
        requests, running = metrics.requests(), metrics.running_requests()
        ttft, duration = metrics.ttft(), metrics.duration()
        for status, count in self.requests.items():
            requests.add_metric([*labels, status], count)
        running.add_metric(labels, self.running)
        ttft.add_metric(labels, self.ttft.buckets(), self.ttft.sum_s)
        duration.add_metric(labels, self.duration.buckets(), self.duration.sum_s)
        return requests, running, ttft, duration
