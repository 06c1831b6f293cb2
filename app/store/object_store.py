"""Objects by name, whatever keeps them: what a store can do, how it fails, and which names there are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

OnBytes = Callable[[int], None]
"""Told how many bytes have just moved, perhaps from another thread; S3 takes back what it must send again."""

INCOMING = ".incoming"
"""Where FileStore keeps what is half written; no object's name begins with it."""


class StoreError(OSError):
    """The object store failed. The message names the object and the failure, never a credential."""


class StoreUnavailable(StoreError):
    """It failed in a way that may pass: no answer, a cut connection, a server's own trouble, too many calls."""


class ObjectMissing(StoreError):
    """There is no object of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no such object: {self.name}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing."""

    name: str
    size_bytes: int
    modified_at: datetime = field(default=datetime.fromtimestamp(0, UTC), compare=False)


class PartUpload(Protocol):
    """An object that arrives in parts, in any order and from several threads, and is there once it is finished.

    What has arrived outlives this process. Parts are counted from 0; all but the last have the size agreed on.
    """

    def holds(self, number: int, data: bytes) -> bool:
        """Whether an earlier process has sent this part, and just these bytes."""

    def send(self, number: int, data: bytes) -> None:
        """Put a part, or put it again."""

    def finish(self) -> None:
        """Make it the object; every part was sent or is held."""


class ObjectStore(Protocol):
    """Objects by name; a name is '/'-separated and relative (see check_name, which every method applies).

    Whole objects appear at once: a reader sees the old bytes or the new ones. Trouble is an OSError.
    """

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose names begin with `prefix` (which need not end at a '/'), sorted by name."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `start`; fewer where the object ends. Raises ObjectMissing."""

    def write(self, name: str, data: bytes) -> None:
        """Create or replace the object."""

    def upload(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Create or replace the object from a file, in bounded memory."""

    def open_upload(self, name: str, size_bytes: int, part_bytes: int) -> PartUpload:
        """Go on with the unfinished upload of the object, or begin one. `size_bytes` is above 0."""

    def unfinished(self, prefix: str) -> Iterator[StoredObject]:
        """The uploads that were begun and not finished, as the objects they were to become; sizes may be 0."""

    def drop_uploads(self, prefix: str) -> None:
        """Remove what unfinished uploads of such names hold."""

    def download(self, name: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Create or replace the file `path`, and its folder, in bounded memory. Raises ObjectMissing."""

    def delete(self, name: str) -> None:
        """Remove the object; fine when there is none."""

    def local_path(self, name: str) -> Path | None:
        """The object's own file, to be read only; None when it has none on this machine."""


def check_name(name: str) -> str:
    """The name, if it is one. Raises ValueError: absolute, '.' or '..', an empty part, a backslash, NUL, too long."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[0] == INCOMING or "\\" in name or "\0" in name:
        raise ValueError(f"not an object name: {name!r}")
    if len(name.encode()) > 1024:  # S3's limit; encode() also refuses what is not Unicode
        raise ValueError("an object name takes at most 1024 bytes")
    return name


def check_prefix(prefix: str) -> str:
    """The prefix, if a name can begin with it. Raises ValueError."""
    check_name(f"{prefix}x")
    return prefix


def check_range(start: int, length: int | None) -> None:
    """Raises ValueError for a negative number."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError("a range cannot be negative")
