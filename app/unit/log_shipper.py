"""Brings the log of a unit's engine into the object store, line by line as others may read it.

What one that was killed has left, the next unit that starts on the node brings. The lines of the last moments before
a kill may then come twice; none is lost.
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from app.core.lifecycle import parse_application_name
from app.core.log_lines import write
from app.core.log_text import clean
from app.store.layout import LogObject, log_hour, log_prefix, parse_log_name
from app.store.object_store import ObjectStore
from app.unit.log_mark import LogMark, remove_left

OBJECT_BYTES = 256 << 10
"""An object that has grown so far is not written again; the next one begins."""
DAY_BYTES = 64 << 20
"""Of logs per endpoint; what more comes on the same day (UTC) is left out, and that is said."""
LOCAL_BYTES = 64 << 20
"""A log that has been brought in full and is longer than this is emptied: nobody else would."""
READ_BYTES = 64 << 10
"""At a time; of a line that is longer, the beginning is brought."""

log = logging.getLogger("ray.serve")


class LogShipper:
    """One engine's log. Its methods block; safe to share between threads."""

    def __init__(
        self,
        store: ObjectStore,
        log_file: Path,
        endpoint_id: str,
        unit: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        day_bytes: int = DAY_BYTES,
    ):
        """Raises BlockingIOError when another process, which lives, is at it."""
        self._store = store
        self._path = log_file
        self._endpoint_id = endpoint_id
        self._unit = unit
        self._now = now
        self._day_bytes = day_bytes
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log_file.touch(0o600)
        self._mark = LogMark(log_file)
        self._log: BinaryIO | None = None
        self._within_line = False
        """The beginning of the line that we are in was brought as if it were whole."""
        self._lock = threading.Lock()
        self._said: list[str] = []
        self._object: LogObject | None = None
        self._content = bytearray()
        self._others_bytes = 0
        """Of the endpoint's logs on this day without the object that grows, as of that object's beginning."""
        self._full_day = ""

    def say(self, line: str) -> None:
        """A line of the unit's own, to be brought with the engine's next ones."""
        with self._lock:
            self._said.append(line)

    def ship(self, *, whole: bool = False) -> None:
        """Bring what is new; with `whole`, also a last line that has no end yet. Raises OSError of the store.

        After a failure the same is brought by the next call.
        """
        with self._lock:
            while not self._ship_some(whole):
                pass
            self._empty_when_long()

    def close(self) -> None:
        """Let go of the log; what has not been brought is another's to bring."""
        with self._lock:
            self._mark.close()
            if self._log:
                self._log.close()

    def _ship_some(self, whole: bool) -> bool:
        """Returns whether that was all."""
        data, last = self._read(whole)
        lines = data.decode(errors="replace").split("\n")
        if self._within_line:  # its rest: half a key that begins it would not be known for one
            lines[0] = ""
        kept = [cleaned for line in (*self._said, *lines) if (cleaned := clean(line))]
        if kept:
            self._bring(kept)
        self._said.clear()
        if data:
            self._within_line = not data.endswith(b"\n")
            self._mark.move(self._mark.offset + len(data))
        return last

    def _read(self, whole: bool) -> tuple[bytes, bool]:
        """Whole lines from where we are, and whether there are no more now."""
        if self._log is None:
            try:
                self._log = self._path.open("rb")
            except FileNotFoundError:
                return b"", True
        size = os.fstat(self._log.fileno()).st_size
        if size <= self._mark.offset:
            self._mark.offset = size
            return b"", True
        data = os.pread(self._log.fileno(), READ_BYTES, self._mark.offset)
        last = self._mark.offset + len(data) >= size
        end = data.rfind(b"\n") + 1
        if (whole and last) or (not end and len(data) == READ_BYTES):
            end = len(data)
        return data[:end], last or not end

    def _bring(self, lines: list[str]) -> None:
        moment = self._now()
        hour = log_hour(moment)
        if self._full_day == hour[:8]:
            return
        if self._object is None or self._object.hour != hour or len(self._content) >= OBJECT_BYTES:
            self._begin_object(hour)
        assert self._object
        written = "".join(f"{write(line, moment)}\n" for line in lines).encode()
        full = self._others_bytes + len(self._content) + len(written) > self._day_bytes
        if full:
            note = f"the rest of this day's log is left out: there are {self._day_bytes >> 20} MiB of it already"
            written = f"{write(note, moment)}\n".encode()
        content = self._content + written
        self._store.write(self._object.name, bytes(content))
        self._content = content
        if full:
            self._full_day = hour[:8]

    def _begin_object(self, hour: str) -> None:
        """Look at what there is of this day: another may have brought some of the same unit's log before."""
        number = 0
        self._others_bytes = 0
        for stored in self._store.list(f"{log_prefix(self._endpoint_id)}{hour[:8]}"):
            self._others_bytes += stored.size_bytes
            known = parse_log_name(stored.name)
            if known and (known.hour, known.unit) == (hour, self._unit):
                number = max(number, known.number + 1)
        self._object = LogObject(self._endpoint_id, hour, self._unit, number)
        self._content = bytearray()

    def _empty_when_long(self) -> None:
        if self._log is None or self._mark.offset < LOCAL_BYTES:
            return
        if os.fstat(self._log.fileno()).st_size == self._mark.offset:
            with suppress(FileNotFoundError):
                os.truncate(self._path, 0)  # the engine appends, so it goes on at the beginning
                self._mark.move(0)


def ship_leftovers(store: ObjectStore, log_dir: Path) -> None:
    """Bring what units that were killed on this node have left. What fails is logged; the next unit tries again."""
    for path in sorted(log_dir.glob("engine-ep-*.log")):
        application, _, unit = path.stem.removeprefix("engine-").rpartition("-")
        known = parse_application_name(application)
        try:
            stat = path.stat()
            if known is None or not unit.isalnum() or not stat.st_size:
                continue
            written_at = datetime.fromtimestamp(stat.st_mtime, UTC)
            shipper = LogShipper(store, path, known[0], unit, now=lambda at=written_at: at)  # type: ignore[misc]
        except (BlockingIOError, FileNotFoundError):
            continue  # its unit lives, or the log has gone
        try:
            shipper.ship(whole=True)
        except OSError as error:
            log.warning("the log of an earlier unit could not be brought to the store: %s", error)
        finally:
            shipper.close()
    remove_left(log_dir)
