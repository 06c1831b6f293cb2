"""A file of a usage spool: lines are only added, and whoever owns it holds a lock that ends with the process."""

import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from app.core.usage import Entry, left_open

SUFFIX = ".jsonl"
ASIDE_SUFFIX = ".refused"
"""Nobody claims these."""

log = logging.getLogger("ray.serve")


class UsageFile:
    """One of them, owned. Its methods raise OSError."""

    def __init__(self, path: Path, descriptor: int):
        self._path = path
        self._descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size
        self.taken_bytes: int | None = None
        """How much of it the control plane has; None: it is to be asked."""

    @classmethod
    def create(cls, path: Path) -> "UsageFile":
        """A new one."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody looked for files without an owner just then, and has it now
            os.close(descriptor)
            raise
        file = cls(path, descriptor)
        file.taken_bytes = 0
        return file

    @classmethod
    def claim(cls, path: Path) -> "UsageFile | None":
        """One whose owner is gone, as it may have left it: None while it has an owner, or when it is gone too.

        What its owner had begun and not ended is ended.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:  # else its next owner has sent and removed it meanwhile
                file = cls(path, descriptor)
                file._mend()
                return file
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def id(self) -> str:
        """What the control plane knows it by."""
        return self._path.stem

    @property
    def waiting_bytes(self) -> int:
        """What the control plane does not have."""
        return max(0, self.size_bytes - (self.taken_bytes or 0))

    def append(self, lines: bytes) -> None:
        """Add whole lines, all of them or none. They outlive this process, though not the machine."""
        try:
            written = os.write(self._descriptor, lines)
        except OSError:
            self._cut()
            raise
        if written < len(lines):
            self._cut()
            raise OSError("the disk is full")
        self.size_bytes += written

    def read(self, from_bytes: int, most_bytes: int) -> bytes:
        """Whole lines from there on, but for a single line that is longer."""
        data = os.pread(self._descriptor, min(most_bytes, self.size_bytes - from_bytes), from_bytes)
        return data[: data.rfind(b"\n") + 1]

    def close(self) -> None:
        """Leave it to whoever claims it."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """It has been taken as a whole."""
        self._path.unlink(missing_ok=True)
        self.close()

    def set_aside(self) -> str:
        """Nobody is to send it any more. Returns its name from now on."""
        try:
            return self._path.rename(self._path.with_suffix(ASIDE_SUFFIX)).name
        finally:
            self.close()

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self.size_bytes)

    def _mend(self) -> None:
        data = os.pread(self._descriptor, self.size_bytes, 0)
        self.size_bytes = data.rfind(b"\n") + 1
        self._cut()
        if ended := b"".join(line_of(entry.given_up()) for entry in left_open(entries(data[: self.size_bytes]))):
            self.append(ended)


def line_of(entry: Entry) -> bytes:
    """An entry as it is written; what it leaves unsaid is left out."""
    return entry.model_dump_json(exclude_defaults=True).encode() + b"\n"


def entries(data: bytes) -> Iterator[Entry]:
    """The entries of whole lines; a line that is none, which only a broken disk leaves, is passed over."""
    for line in data.splitlines():
        try:
            yield Entry.model_validate_json(line)
        except ValidationError:
            log.error("a line of usage cannot be read, and does not count")
