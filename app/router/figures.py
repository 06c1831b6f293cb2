"""What a router counts: requests by endpoint and how they ended, how long they took, which keys were used.

Counted at a request's arrival, its first bytes and its end, never for each token.
"""

import asyncio
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from types import TracebackType

from app import metrics
from app.core.errors import PlatformError
from app.core.reports import RouterReport
from app.router.endpoint_figures import EndpointFigures
from app.web import CALLER_LEFT

NO_ENDPOINT = ""
"""Where requests count that named no endpoint, or none that they may call. The control plane hears nothing of it."""
KEYS_REPEATED_S = 300.0
"""A key's use is reported for so long, in case the control plane loses what it has heard."""


@dataclass
class SpoolFigures:
    """How a router's usage spool is, see app/router/usage_spool.py."""

    waiting_bytes: int = 0
    unwritten_requests: int = 0
    lost_requests: int = 0


class Figures:
    """All that one router counts. `clock` measures durations, `wall` tells Unix time; both in seconds."""

    def __init__(self, router: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time):
        self.router = router
        self.clock = clock
        self.wall = wall
        self.spool = SpoolFigures()
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
        families = [
            (metrics.routing_table(), number),
            (metrics.usage_spool_bytes(), self.spool.waiting_bytes),
            (metrics.usage_unwritten_requests(), self.spool.unwritten_requests),
        ]
        lost = metrics.usage_lost_requests()
        lost.add_metric([self.router], self.spool.lost_requests)
        for family, value in families:
            family.add_metric([self.router], value)
        endpoints = (of.exposition(self.router, endpoint_id) for endpoint_id, of in self._known())
        return metrics.merge([metrics.exposition([lost, *(family for family, _ in families)]), *endpoints])

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
