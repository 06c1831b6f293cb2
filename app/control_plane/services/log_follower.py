"""What an endpoint's logs grow by."""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from app.control_plane.services.following import News
from app.core import log_lines
from app.core.log_lines import LogLine, Wanted, as_text
from app.store.layout import LogObject, log_hour, log_prefix, parse_log_name
from app.store.object_store import ObjectMissing, ObjectStore

LOOK_BYTES = 8 << 20
"""Read at one look, in whole objects from the newest on; what more there is, is a list's to show."""
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
        earliest = now() - LOOKED_BACK
        self._since = max(wanted.since or earliest, earliest)
        self._read_bytes: dict[str, int] = {}
        self._first = True

    def look(self) -> News:
        """The lines that are new since the last look. Blocks.

        A store that does not answer has nothing new: the next look finds it.
        """
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
        read_bytes = dict(self._read_bytes)
        found: list[LogLine] = []
        room = LOOK_BYTES
        for known, size_bytes in sorted(
            self._grown(), key=lambda grown: (grown[0].hour, grown[0].number), reverse=True
        ):
            start = read_bytes.get(known.name, 0)
            read_bytes[known.name] = size_bytes
            if room <= 0:
                continue
            try:
                data = self._store.read(known.name, start)
            except ObjectMissing:
                continue
            room -= len(data)
            read_bytes[known.name] = start + len(data)
            found += log_lines.read(data.decode(errors="replace"), known.unit, known.number)
        self._read_bytes = read_bytes  # only now: had one failed, all would be read again
        return found

    def _grown(self) -> Iterator[tuple[LogObject, int]]:
        """Objects with something that was not read, and their sizes."""
        for day in sorted({log_hour(moment)[:8] for moment in (self._since, self._now())}):
            for stored in self._store.list(f"{log_prefix(self._wanted.endpoint_id)}{day}"):
                known = parse_log_name(stored.name)
                if known is None or known.hour < log_hour(self._since):
                    continue
                if stored.size_bytes > self._read_bytes.get(stored.name, 0):
                    yield known, stored.size_bytes
