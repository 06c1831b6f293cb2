"""The logs of endpoints' units, as they lie in the object store."""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from app.control_plane.services.following import News
from app.control_plane.services.log_follower import LogFollower
from app.core import log_lines
from app.core.errors import Unavailable
from app.core.log_lines import LogLine, Place, Wanted
from app.store.layout import LOGS, LogObject, log_hour, log_prefix, parse_log_name
from app.store.object_store import ObjectMissing, ObjectStore

SCAN_BYTES = 32 << 20
"""Read for one page at most, once there is something new in it; a search goes on with the next page."""


class Found(NamedTuple):
    """Some lines in order, and behind which place to go on; None at the end."""

    lines: list[LogLine]
    next: Place | None


class LogStore:
    """Reads logs, and drops those whose time is over. Its methods block."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime]):
        self._store = store
        self._now = now

    def find(self, wanted: Wanted, limit: int, after: Place | None = None, scan_bytes: int = SCAN_BYTES) -> Found:
        """At most `limit` lines behind the one at `after`; fewer when `scan_bytes` have been read.

        Raises Unavailable while the store does not answer.
        """
        found: list[LogLine] = []
        place = after
        with _explained():
            scan = _Scan(self._store)
            for line in scan.lines(wanted, after):
                if place is after:
                    scan.read_bytes = 0  # what it took to come here again is not held against the search
                elif scan.read_bytes > scan_bytes or len(found) == limit:
                    return Found(found, place)
                place = line.place
                if wanted.matches(line):
                    found.append(line)
        return Found(found, None)

    def all(self, wanted: Wanted) -> Iterator[LogLine]:
        """Every line, in order. Raises Unavailable while the store does not answer."""
        with _explained():
            yield from filter(wanted.matches, _Scan(self._store).lines(wanted, None))

    def follower(self, wanted: Wanted) -> Callable[[], News]:
        """What gives the lines as text that are new since it was last asked."""
        return LogFollower(self._store, wanted, self._now).look

    def drop_before(self, moment: datetime, limit: int = 10_000) -> int:
        """Remove logs of whole hours before `moment`, `limit` objects at most; returns how many those were."""
        hour = log_hour(moment)
        count = 0
        for stored in self._store.list(LOGS):
            known = parse_log_name(stored.name)
            if known and known.hour < hour and count < limit:
                self._store.delete(stored.name)
                count += 1
        return count


class _Scan:
    """One reading through an endpoint's logs, hour by hour; within an hour, all units' lines are merged."""

    def __init__(self, store: ObjectStore):
        self._store = store
        self.read_bytes = 0

    def lines(self, wanted: Wanted, after: Place | None) -> Iterator[LogLine]:
        """The lines of the wanted time behind `after`, in order."""
        first = log_lines.timestamp(wanted.since) if wanted.since else ""
        last = log_lines.timestamp(wanted.until) if wanted.until else "~"
        for line in self._merged(wanted, after):
            if not first <= line.place.written_at < last:
                continue
            if after and (line.place >= after if wanted.newest_first else line.place <= after):
                continue
            yield line

    def _merged(self, wanted: Wanted, after: Place | None) -> Iterator[LogLine]:
        earliest = log_hour(wanted.since) if wanted.since else ""
        latest = log_hour(wanted.until) if wanted.until else "~"
        if after and wanted.newest_first:
            latest = min(latest, _hour_of(after))
        elif after:
            earliest = max(earliest, _hour_of(after))
        listed = (parse_log_name(stored.name) for stored in self._store.list(log_prefix(wanted.endpoint_id)))
        objects = [known for known in listed if known and earliest <= known.hour <= latest]
        objects.sort(reverse=wanted.newest_first)
        for _, of_hour in groupby(objects, key=lambda known: known.hour):
            units = [list(of_unit) for _, of_unit in groupby(of_hour, key=lambda known: known.unit)]
            streams = [self._of_unit(unit, wanted.newest_first) for unit in units]
            yield from heapq.merge(*streams, reverse=wanted.newest_first)

    def _of_unit(self, objects: list[LogObject], newest_first: bool) -> Iterator[LogLine]:
        for known in objects:
            try:
                data = self._store.read(known.name)
            except ObjectMissing:  # its time was over
                continue
            self.read_bytes += len(data)
            lines = log_lines.read(data.decode(errors="replace"), known.unit, known.number)
            yield from reversed(lines) if newest_first else lines


def _hour_of(place: Place) -> str:
    return place.written_at[:13].replace("-", "")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise Unavailable("The logs cannot be read now: the object store does not answer.") from None
