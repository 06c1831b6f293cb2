"""What a router counts: requests by endpoint and how they ended, how long they took, which keys were used.

Counted at a request's arrival, its first bytes and its end, never for each token.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import accumulate
from types import TracebackType

from prometheus_client.core import Metric

from app import metrics
from app.core.errors import PlatformError
from app.core.reports import STATUS_CLASSES, EndpointReport, RouterReport, StatusClass, status_class

CALLER_LEFT = 499
"""The usual number for a request whose caller did not wait for the answer; nobody gets it."""
NO_ENDPOINT = ""
"""Where requests count that named no endpoint, or none that they may call. The control plane hears nothing of it."""
KEYS_REPEATED_S = 300.0
"""A key's use is reported for so long, in case the control plane loses what it has heard."""


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


class Figures:
    """All that one router counts. `clock` measures durations, `wall` tells Unix time; both in seconds."""

    def __init__(self, router: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time):
        self.router = router
        self.clock = clock
        self.wall = wall
        self._started_at = wall()
        self._endpoints: dict[str, EndpointFigures] = {}
        self._forgotten_changes = 0
        self._keys: dict[str, float] = {}

    @property
    def changes(self) -> int:
        """Grows whenever anything is counted."""
        return self._forgotten_changes + sum(of.changes for of in self._endpoints.values())

    def request(self) -> "CountedRequest":
        """A request that has just arrived: a context that lasts as long as the request."""
        return CountedRequest(self)

    def of(self, endpoint_id: str) -> EndpointFigures:
        """An endpoint's figures; only for IDs from a routing table, for they become labels."""
        of = self._endpoints.get(endpoint_id)
        if of is None:
            of = self._endpoints[endpoint_id] = EndpointFigures()
        return of

    def key_used(self, key_hash: str) -> None:
        """Note that a good key was used just now."""
        self._keys[key_hash] = self.wall()

    def report(self, number: int) -> RouterReport:
        """Everything so far; `number` is that of the routing table in use."""
        return RouterReport(
            started_at=self._started_at,
            endpoints={endpoint_id: of.report() for endpoint_id, of in self._known() if endpoint_id != NO_ENDPOINT},
            keys=self._keys.copy(),
            prometheus=self.exposition(number),
        )

    def reported(self, report: RouterReport, known: Container[str]) -> None:
        """The control plane has this report: forget what it need not hear again. `known`: endpoints in the table."""
        for endpoint_id, told in report.endpoints.items():
            of = self._endpoints[endpoint_id]
            if endpoint_id not in known and not of.running and of.duration.count == told.duration_count:
                self._forgotten_changes += self._endpoints.pop(endpoint_id).changes
        recent = self.wall() - KEYS_REPEATED_S
        self._keys = {
            key: used_at for key, used_at in self._keys.items() if used_at > recent or used_at != report.keys.get(key)
        }

    def exposition(self, number: int) -> str:
        """For Prometheus."""
        table = metrics.routing_table()
        table.add_metric([self.router], number)
        endpoints = (of.exposition(self.router, endpoint_id) for endpoint_id, of in self._known())
        return metrics.merge([metrics.exposition([table]), *endpoints])

    def _known(self) -> list[tuple[str, EndpointFigures]]:
        return list(self._endpoints.items())


class CountedRequest:
    """A request from its arrival to its end. It counts by what it raised, else by the status that was sent."""

    def __init__(self, figures: Figures):
        self._figures = figures
        self._of: EndpointFigures | None = None
        self._status = CALLER_LEFT

    def __enter__(self) -> "CountedRequest":
        self._began = self._figures.clock()
        self._arrived_at = self._figures.wall()
        return self

    def concerns(self, endpoint_id: str) -> None:
        """It is known by now which endpoint was meant."""
        self._of = self._figures.of(endpoint_id)
        self._of.arrived(self._arrived_at)

    def answered(self, status: int, *, streamed: bool) -> None:
        """The first bytes of its answer are about to go out."""
        self._status = status
        if streamed and self._of:
            self._of.first_bytes(self._figures.clock() - self._began)

    def broke_off(self, error: PlatformError) -> None:
        """Its stream ended with an error event."""
        self._status = error.status

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, PlatformError):
            self._status = error.status
        elif error is not None and not isinstance(error, asyncio.CancelledError | TimeoutError):  # those: nobody reads
            self._status = 500
        if self._of is None:
            self.concerns(NO_ENDPOINT)
        assert self._of
        self._of.ended(self._status, self._figures.clock() - self._began)
