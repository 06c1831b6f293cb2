"""What an endpoint's logs grow by."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from app.control_plane.services.following import News
from app.core import log_lines
from app.core.log_lines import LogLine, Wanted, as_text
from app.store.layout import log_hour, log_prefix, parse_log_name
from app.store.object_store import ObjectMissing, ObjectStore

FOLLOWED_FOR = timedelta(hours=1)
"""Whoever wants to see more asks again."""
FIRST_LINES = 100
"""Of what is there already, where nobody says since when."""
LOOKED_BACK = timedelta(hours=1)
"""At most; what is older is a list's to show."""

log = logging.getLogger("ray.serve")


class LogFollower:
    """One reader of an endpoint's log. An object only grows: of each, what lies behind what was read is new."""

    def __init__(self, store: ObjectStore, wanted: Wanted, now: Callable[[], datetime]):
        self._store = store
        self._wanted = wanted
        self._now = now
        self._begun_at = now()
        earliest = self._begun_at - LOOKED_BACK
        self._since = max(wanted.since or earliest, earliest)
        self._read_bytes: dict[str, int] = {}
        self._first = True

    def look(self) -> News:
        """The lines that are new since the last look, until FOLLOWED_FOR has passed. Blocks.

        A store that does not answer has nothing new: the next look finds it.
        """
        if self._now() - self._begun_at >= FOLLOWED_FOR:
            return News("", last=True)
        try:
            lines = self._new_lines()
        except OSError as error:
            log.warning("a log cannot be followed for now: %s", error)
            return News("")
        return News("".join(f"{as_text(line)}\n" for line in lines))

    def _new_lines(self) -> list[LogLine]:
        """In order, and only those that are wanted."""
        lines = [line for line in self._read() if self._wanted.matches(line)]
        lines.sort(key=lambda line: line.place.written_at)
        if self._first:
            self._first = False
            first = log_lines.timestamp(self._since)
            lines = [line for line in lines if line.place.written_at >= first]
            return lines if self._wanted.since else lines[-FIRST_LINES:]
        return lines

    def _read(self) -> list[LogLine]:
        days = {log_hour(moment)[:8] for moment in (self._since, self._now())}
        read_bytes = dict(self._read_bytes)
        found: list[LogLine] = []
        for day in sorted(days):
            for stored in self._store.list(f"{log_prefix(self._wanted.endpoint_id)}{day}"):
                known = parse_log_name(stored.name)
                start = read_bytes.get(stored.name, 0)
                if known is None or known.hour < log_hour(self._since) or stored.size_bytes <= start:
                    continue
                try:
                    data = self._store.read(stored.name, start)
                except ObjectMissing:
                    continue
                read_bytes[stored.name] = start + len(data)
                found += log_lines.read(data.decode(errors="replace"), known.unit, known.number)
        self._read_bytes = read_bytes  # only now: had one failed, all would be read again
        return found
