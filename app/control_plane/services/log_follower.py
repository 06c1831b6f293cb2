"""Follows an endpoint's logs as they grow."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

from app.core import log_lines
from app.core.log_lines import LogLine, Wanted, as_text
from app.store.layout import log_hour, log_prefix, parse_log_name
from app.store.object_store import ObjectMissing, ObjectStore

POLL_S = 1.0
FOLLOWED_FOR = timedelta(hours=1)
"""Whoever wants to see more asks again."""
FIRST_LINES = 100
"""Of what is there already, where nobody says since when."""
LOOKED_BACK = timedelta(hours=1)
"""At most; what is older is a list's to show."""
SIGN_OF_LIFE_S = 30.0
"""After so long without a line an empty one is sent, so that nothing in between takes the connection for dead."""

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

    def poll(self) -> list[LogLine]:
        """The lines that are new since the last call, in order. Blocks; raises OSError of the store."""
        lines = [line for line in self._new_lines() if self._wanted.matches(line)]
        lines.sort(key=lambda line: line.place.written_at)
        if self._first:
            self._first = False
            first = log_lines.timestamp(self._since)
            lines = [line for line in lines if line.place.written_at >= first]
            return lines if self._wanted.since else lines[-FIRST_LINES:]
        return lines

    async def chunks(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> AsyncIterator[str]:
        """The lines as text, until FOLLOWED_FOR has passed. A store that does not answer is asked again."""
        silent_s = 0.0
        while self._now() - self._begun_at < FOLLOWED_FOR:
            try:
                lines = await asyncio.to_thread(self.poll)
            except OSError as error:
                log.warning("a log cannot be followed for now: %s", error)
                lines = []
            if lines:
                silent_s = 0.0
                yield "".join(f"{as_text(line)}\n" for line in lines)
            elif silent_s >= SIGN_OF_LIFE_S:
                silent_s = 0.0
                yield "\n"
            await sleep(POLL_S)
            silent_s += POLL_S

    def _new_lines(self) -> list[LogLine]:
        days = {log_hour(moment)[:8] for moment in (self._since, self._now())}
        found: list[LogLine] = []
        for day in sorted(days):
            for stored in self._store.list(f"{log_prefix(self._wanted.endpoint_id)}{day}"):
                known = parse_log_name(stored.name)
                read_bytes = self._read_bytes.get(stored.name, 0)
                if known is None or known.hour < log_hour(self._since) or stored.size_bytes <= read_bytes:
                    continue
                try:
                    data = self._store.read(stored.name, read_bytes)
                except ObjectMissing:
                    continue
                self._read_bytes[stored.name] = read_bytes + len(data)
                found += log_lines.read(data.decode(errors="replace"), known.unit, known.number)
        return found
