"""A router's own record of usage, on the disk of its node, until the control plane has it.

Entries are appended to a file in HOME/usage by a plain write: they are in the kernel's hands at once, so that a killed
router loses none; nothing waits for the disk. Files change when they are full. What cannot be written, because the disk
is full or the control plane was away for too long, is added up in memory and written as soon as that is possible.
"""

import logging
from pathlib import Path

from app.core.usage import Account, Entry, Sums
from app.router.figures import SpoolFigures
from app.router.usage_file import SUFFIX, UsageFile, line_of

FILE_BYTES = 4 << 20
SPOOL_BYTES = 1 << 30
"""Of all files together: some four million requests."""
MAX_SUMS = 10_000
"""Accounts and hours that are added up in memory."""

log = logging.getLogger("ray.serve")


class UsageSpool:
    """The files that this router owns: its own, and those it has claimed of others that are gone."""

    def __init__(
        self,
        folder: Path,
        router: str,
        figures: SpoolFigures,
        file_bytes: int = FILE_BYTES,
        spool_bytes: int = SPOOL_BYTES,
    ):
        self._folder = folder
        self._router = router
        self._figures = figures
        self._file_bytes = file_bytes
        self._spool_bytes = spool_bytes
        self._current: UsageFile | None = None
        self._made = 0
        self.files: list[UsageFile] = []
        """The oldest first; the one that is written to among them."""
        self._size_bytes = 0
        """Of all files."""
        self._open: dict[int, Entry] = {}
        """Requests that have begun and not ended, by number."""
        self._sums: dict[tuple[Account, int], Entry] = {}
        """What could not be written."""

    def write(self, entry: Entry) -> None:
        """See Book."""
        try:
            self._append(entry)
        except OSError as error:
            if not entry.begun:
                self._add_up(entry, error)
        if entry.begun:
            self._open[entry.number] = entry
        else:
            self._open.pop(entry.number, None)

    def flush(self) -> None:
        """Write what could not be written before, if that is possible by now."""
        try:
            for place, entry in list(self._sums.items()):
                self._append(entry)
                del self._sums[place]
        except OSError:
            pass
        self._measure()

    def claim(self) -> list[UsageFile]:
        """Files of routers of this node that are gone, for `adopt`. Takes a while: for another thread."""
        found = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                file = UsageFile.claim(path)
            except OSError as error:
                log.error("usage that another router has left cannot be read (%s)", type(error).__name__)
                continue
            if file is not None:
                found.append(file)
        return found

    def adopt(self, files: list[UsageFile]) -> None:
        """Own these too."""
        self.files[:0] = files
        self._size_bytes += sum(file.size_bytes for file in files)
        self._measure()

    def taken(self, file: UsageFile) -> None:
        """The control plane has all of a file: it can go, unless it is still written to."""
        if file is not self._current:
            self.files.remove(file)
            self._size_bytes -= file.size_bytes
            file.remove()
        self._measure()

    def set_aside(self, file: UsageFile, requests: int) -> None:
        """The control plane refuses a file for good, which loses so many requests: a person has to look at it.

        It keeps its place within the spool's bound. May raise OSError.
        """
        if file is self._current:
            self._current = None  # what is under way begins anew in the next
        self.files.remove(file)
        self._figures.lost_requests += requests
        name = file.set_aside()
        log.error("usage of %d requests was refused by the control plane, and is set aside in %s", requests, name)
        self._measure()

    def close(self) -> None:
        """Leave what is not taken, or not ended, to another router."""
        current, self._current = self._current, None
        if current and not current.waiting_bytes and not self._open:
            self.taken(current)
        while self.files:
            self.files.pop().close()

    def _append(self, entry: Entry) -> None:
        line = line_of(entry)
        if self._size_bytes + len(line) > self._spool_bytes:
            raise OSError("the spool is full")
        if self._current is None or self._current.size_bytes >= self._file_bytes:
            self._current = self._next_file()
        self._add(self._current, line)

    def _add(self, file: UsageFile, lines: bytes) -> None:
        file.append(lines)
        self._size_bytes += len(lines)
        self._figures.waiting_bytes += len(lines)

    def _next_file(self) -> UsageFile:
        """It begins with what is under way, which then ends in the file before: that one may be gone any time."""
        under_way = list(self._open.values())
        self._made += 1
        file = UsageFile.create(self._folder / f"{self._router}-{self._made}{SUFFIX}")
        try:
            if under_way:
                file.append(b"".join(map(line_of, under_way)))
            if under_way and self._current:  # not before: should this fail, they stay where they are
                closed = (line_of(entry.model_copy(update={"begun": False})) for entry in under_way)
                self._add(self._current, b"".join(closed))
        except OSError:
            file.remove()
            raise
        self.files.append(file)
        self._size_bytes += file.size_bytes
        self._figures.waiting_bytes += file.size_bytes
        return file

    def _add_up(self, entry: Entry, error: OSError) -> None:
        place = (entry.account, entry.hour)
        before = self._sums.get(place)
        if not self._sums:
            log.error("usage cannot be written (%s) and is kept in memory until it can be", error)
        if before is None and len(self._sums) >= MAX_SUMS:
            log.error("usage of %d requests is lost: none of it can be written", entry.requests)
            self._figures.lost_requests += entry.requests
            return
        self._figures.unwritten_requests += entry.requests
        sums = Sums.plus(before, entry) if before else entry
        several = {"number": 0, "request_id": ""}
        self._sums[place] = entry.model_copy(update=several | {name: getattr(sums, name) for name in Sums.model_fields})

    def _measure(self) -> None:
        self._figures.waiting_bytes = sum(file.waiting_bytes for file in self.files)
        self._figures.unwritten_requests = sum(entry.requests for entry in self._sums.values())
