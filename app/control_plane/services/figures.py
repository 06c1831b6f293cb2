"""Figures of endpoints: taken from the reports of routers and units, kept by minute for a day.

Reports carry counters since their sender started. What has been counted of them is written down in the same
transaction as the minutes that it went into, so that a control plane that is killed, or was away, neither loses
requests nor counts any twice.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import ValidationError

from app.core.errors import BadRequest
from app.core.figures import (
    MinuteFigures,
    growth,
    merged,
    router_counters,
    unit_counters,
    unit_gauges,
)
from app.core.records import Counted, Endpoint, EndpointMinute
from app.core.reports import RouterReport, UnitReport
from app.store.database import Registry

MINUTE = timedelta(minutes=1)
KEPT = timedelta(hours=24)
"""Minutes; and after so long without a word, what was counted of a router or a unit."""
ROUTER_LOST_AFTER = timedelta(seconds=90)
"""An idle router reports twice a minute."""
UNIT_LOST_AFTER = timedelta(seconds=35)
"""Units report every 10 s."""
MAX_REPORTERS = 8192
"""At a time; beyond that nobody new is listened to."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)

log = logging.getLogger("ray.serve")


class UnitHeard(NamedTuple):
    """The newest report of a unit."""

    endpoint_id: str
    revision: str
    unit: str
    report: UnitReport
    at: datetime


class Figures:
    """Figures by minute, and what was reported last. Safe to share between threads."""

    def __init__(
        self,
        registry: Registry,
        lock: threading.RLock,
        keys_used: Callable[[Mapping[str, datetime]], None],
        now: Callable[[], datetime],
    ):
        self._registry = registry
        self._writing = lock
        self._keys_used = keys_used
        self._now = now
        self._lock = threading.Lock()
        self._minutes: dict[tuple[str, datetime], MinuteFigures] = {}
        self._begun: dict[tuple[str, datetime], dict[str, float]] = {}
        """What another control plane has written of a minute that is not over."""
        self._counted: dict[str, Counted] = {}
        self._unwritten: set[str] = set()
        """IDs of reporters of whom more is counted than is written down."""
        self._units: dict[str, UnitHeard] = {}
        self._routers: dict[str, tuple[str, datetime]] = {}
        self._last_requests: dict[str, datetime] = {}
        self._written_minute: datetime | None = None
        self._forgotten_before = _LONG_AGO
        """What is written of earlier minutes is only in the registry: they come again when the clock goes back."""

    def load(self) -> None:
        """Go on from what is written down."""
        now = self._now()
        counted = self._registry.find(Counted, since=now - KEPT)
        begun = self._registry.find(EndpointMinute, since=_minute(now))
        with self._lock:
            self._counted = {record.id: record for record in counted}
            self._begun = {(record.endpoint_id, record.created_at): record.figures for record in begun}
            self._written_minute = _minute(now)

    def router_report(self, router: str, report: str) -> None:
        """Take a router's report, a RouterReport as JSON. Raises BadRequest for what is none."""
        try:
            parsed = RouterReport.model_validate_json(report)
        except ValidationError:
            raise BadRequest("This is not a router's report.") from None
        counters = {endpoint_id: router_counters(found) for endpoint_id, found in parsed.endpoints.items()}
        moments = {
            endpoint_id: _moment(found.last_request_at)
            for endpoint_id, found in parsed.endpoints.items()
            if found.last_request_at
        }
        with self._lock:
            if not self._count(f"router {router}", parsed.started_at, counters):
                return
            self._routers[router] = (parsed.prometheus, self._now())
            for endpoint_id, moment in moments.items():
                self._last_requests[endpoint_id] = max(moment, self._last_requests.get(endpoint_id, moment))
        if parsed.keys:
            self._keys_used({key: _moment(at) for key, at in parsed.keys.items()})

    def unit_report(self, endpoint_id: str, revision: str, unit: str, report: str) -> None:
        """Take a unit's report, a UnitReport as JSON. Raises BadRequest for what is none."""
        try:
            parsed = UnitReport.model_validate_json(report)
        except ValidationError:
            raise BadRequest("This is not a unit's report.") from None
        source = f"unit {endpoint_id} {revision} {unit}"
        with self._lock:
            heard = self._units.get(source)
            if heard and heard.report.started_at == parsed.started_at and heard.report.up_s > parsed.up_s:
                return  # a later one has come first; by this one the unit would seem to have begun anew
            if not self._count(source, parsed.started_at, {endpoint_id: unit_counters(parsed)}):
                return
            self._minute_of(endpoint_id).sample(source, unit_gauges(parsed))
            self._units[source] = UnitHeard(endpoint_id, revision, unit, parsed, self._now())

    def minutes(self, endpoint_id: str, count: int) -> list[tuple[datetime, dict[str, float]]]:
        """The last `count` minutes of an endpoint of which anything is known, oldest first; the current one is last."""
        since = _minute(self._now()) - (count - 1) * MINUTE
        written = self._registry.find(EndpointMinute, endpoint_id=endpoint_id, since=since)
        found = {record.created_at: record.figures for record in written}
        with self._lock:
            for (id, minute), heard in self._minutes.items():
                if id == endpoint_id and minute >= since:
                    found[minute] = self._whole(id, minute, heard)
        return sorted(found.items())

    def last_request(self, endpoint_id: str) -> datetime | None:
        """When an endpoint was called last, as far as that is not in its record yet."""
        with self._lock:
            return self._last_requests.get(endpoint_id)

    def units(self) -> list[UnitHeard]:
        """The units that live, as they were when they reported last."""
        recent = self._now() - UNIT_LOST_AFTER
        with self._lock:
            return [heard for heard in self._units.values() if heard.at > recent]

    def routers(self) -> dict[str, str]:
        """The expositions of the routers that live, as of their last reports."""
        recent = self._now() - ROUTER_LOST_AFTER
        with self._lock:
            return {router: text for router, (text, at) in self._routers.items() if at > recent}

    def step(self) -> bool:
        """Write down what has come in, once a minute. Returns True: there is never anything to wait for."""
        with self._lock:
            due = self._written_minute != _minute(self._now())
        if due:
            self.write()
        return True

    def write(self) -> None:
        """Write down everything that has come in, also of the minute that is not over."""
        with self._writing:  # else an endpoint could be changed by others meanwhile
            endpoints = {endpoint.id: endpoint for endpoint in self._registry.find(Endpoint)}
            with self._lock:
                minute = _minute(self._now())
                self._remember_again()
                rows = [
                    EndpointMinute(
                        id=_minute_id(id, of), created_at=of, endpoint_id=id, figures=self._whole(id, of, heard)
                    )
                    for (id, of), heard in self._minutes.items()
                    if id in endpoints
                ]
                counted = [self._counted[source] for source in self._unwritten]
                last_requests = dict(self._last_requests)
            called = [
                endpoint.model_copy(update={"last_request_at": last_requests[endpoint.id]})
                for endpoint in endpoints.values()
                if last_requests.get(endpoint.id, _LONG_AGO) > (endpoint.last_request_at or _LONG_AGO)
            ]
            self._registry.put(*rows, *counted, *called)
            with self._lock:
                self._forget_written(minute, counted, last_requests)
        self._registry.delete_before(Counted, minute - KEPT)

    def close(self) -> None:
        """Write down the rest; what cannot be written now, the next control plane counts from the next reports."""
        if self._written_minute is None:
            return  # it was never opened
        try:
            self.write()
        except Exception as error:
            log.warning("the last figures are not written down (%s)", type(error).__name__)

    def _count(self, source: str, started_at: float, counters: Mapping[str, Mapping[str, float]]) -> bool:
        """Add what has grown since the last report of this source; False when it is not listened to."""
        before = self._counted.get(source)
        if before is None and len(self._counted) >= MAX_REPORTERS:
            log.warning("%d routers and units report already; %s is not listened to", MAX_REPORTERS, source)
            return False
        known = before.counters if before and before.started_at == started_at else {}
        for endpoint_id, now in counters.items():
            if grown := growth(known.get(endpoint_id, {}), now):
                self._minute_of(endpoint_id).add(grown)
        if before is None or known != counters:
            whole = {endpoint_id: dict(now) for endpoint_id, now in counters.items()}
            self._counted[source] = Counted(id=source, created_at=self._now(), started_at=started_at, counters=whole)
            self._unwritten.add(source)
        elif self._now() - before.created_at > KEPT / 2:
            self._counted[source] = before.model_copy(update={"created_at": self._now()})
            self._unwritten.add(source)
        return True

    def _minute_of(self, endpoint_id: str) -> MinuteFigures:
        return self._minutes.setdefault((endpoint_id, _minute(self._now())), MinuteFigures())

    def _whole(self, endpoint_id: str, minute: datetime, heard: MinuteFigures) -> dict[str, float]:
        return merged(self._begun.get((endpoint_id, minute), {}), heard.figures())

    def _remember_again(self) -> None:
        again = [key for key in self._minutes if key[1] < self._forgotten_before and key not in self._begun]
        if again:
            found = self._registry.find(EndpointMinute, id=[_minute_id(*key) for key in again])
            written = {(record.endpoint_id, record.created_at): record.figures for record in found}
            self._begun |= {key: written.get(key, {}) for key in again}

    def _forget_written(self, minute: datetime, counted: list[Counted], last_requests: Mapping[str, datetime]) -> None:
        """Keep what is not written yet, and the minute that is not over, which is written again."""
        self._minutes = {key: heard for key, heard in self._minutes.items() if key[1] >= minute}
        self._begun = {key: figures for key, figures in self._begun.items() if key[1] >= minute}
        self._unwritten -= {record.id for record in counted if self._counted[record.id] is record}
        self._last_requests = {
            id: moment for id, moment in self._last_requests.items() if moment > last_requests.get(id, _LONG_AGO)
        }
        self._written_minute = minute
        self._forgotten_before = max(self._forgotten_before, minute)
        recent = self._now() - KEPT
        self._counted = {source: record for source, record in self._counted.items() if record.created_at > recent}
        self._unwritten &= self._counted.keys()
        self._units = {source: heard for source, heard in self._units.items() if heard.at > recent}
        self._routers = {router: found for router, found in self._routers.items() if found[1] > recent}


def _minute_id(endpoint_id: str, minute: datetime) -> str:
    return f"{endpoint_id}:{minute:%Y%m%d%H%M}"


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
