"""One version in a node's weight cache: its files, who uses them, what has been checked of them.

    DIGEST/files/           the version's files; absent where the object store itself is on this machine
           lock             held by whoever fills, checks or removes
           use              held, shared, by every process that uses the files; its time says when last
           checked.json     which files had their sha256 compared
           progress.json    how far the newest fetching or checking is

A process that dies leaves its locks, and files of which nothing vouches but checked.json and their sha256.
"""

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from app.store.layout import ManifestFile

POLL_S = 0.1
PROGRESS_PERIOD_S = 1.0
_KEPT = {"lock", "use", "checked.json"}
"""What stays of an entry whose files are removed. Locks that are removed would be held by two."""


def lock(path: Path, wait_s: float, mode: int = fcntl.LOCK_EX) -> BinaryIO:
    """The open file that holds a flock until it is closed or its process ends, however that ends.

    Raises TimeoutError when others hold it for `wait_s`; flock itself would wait for ever.
    """
    deadline = time.monotonic() + wait_s
    file = path.open("ab")  # which creates it, and leaves its time alone
    try:
        while True:
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(path.name) from None
            time.sleep(POLL_S)
    except BaseException:
        file.close()
        raise


class Progress(BaseModel):
    """How much of a version is here."""

    model_config = ConfigDict(frozen=True)

    done_bytes: int
    total_bytes: int
    fetching: bool = False
    """Some of it has to be fetched; else it is only being checked."""

    def __str__(self) -> str:
        total = in_units(self.total_bytes)
        return f"{self.done_bytes / (1 << (30 if total.endswith('GiB') else 20)):.1f} of {total}"


def in_units(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


class Entry:
    """A folder of the cache. What changes files needs `lock`, what removes them `claimed`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = path / "files"

    def lock(self, wait_s: float) -> BinaryIO:
        """The right to fill and to check, and a folder to do it in. Raises TimeoutError."""
        self.path.mkdir(parents=True, exist_ok=True)
        held = lock(self.path / "lock", wait_s)
        self.touch()
        return held

    def use(self) -> BinaryIO:
        """Keeps the files here until it is closed; to be taken while the lock is held."""
        file = lock(self.path / "use", 0, fcntl.LOCK_SH)
        self.touch()
        return file

    def touch(self) -> None:
        """Say that the files are used now."""
        self._used(time.time_ns())  # the clock by which the system itself would note it ticks more slowly

    def _used(self, at_ns: int) -> None:
        use = self.path / "use"
        use.touch()
        os.utime(use, ns=(at_ns, at_ns))

    @property
    def used_at(self) -> float:
        """When the files were last wanted, as far as is known; 0 for what is not of this cache's making."""
        try:
            return (self.path / "use").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether nobody uses, fills or checks the files, which then stays so until the block ends."""
        with ExitStack() as held:
            try:
                held.enter_context(lock(self.path / "lock", 0))
                if not self.used_at:
                    self._used(0)
                held.enter_context(lock(self.path / "use", 0))
                idle = True
            except TimeoutError:
                idle = False
            yield idle

    def clear(self) -> None:
        """Remove the files, and whatever else may lie here. Only when it is claimed."""
        for path in self.path.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def on_disk_bytes(self) -> int:
        """What could be freed here."""
        count = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(FileNotFoundError):  # a download has just been given its name
                    if Path(folder) != self.path or name not in _KEPT:
                        count += Path(folder, name).lstat().st_blocks * 512
        return count

    def promised_bytes(self) -> int:
        """What this takes on the disk, or will once the download under way is complete."""
        progress = self.progress() if self.files.exists() else None
        return max(self.on_disk_bytes(), progress.total_bytes if progress else 0)

    def progress(self) -> Progress | None:
        """Of the newest fetching or checking; None when there was none."""
        try:
            return Progress.model_validate_json((self.path / "progress.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def sweep(self, wanted: set[str]) -> None:
        """Remove all but the wanted files: what downloads that were killed have left."""
        for folder, _, names in os.walk(self.files):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.files).as_posix() not in wanted:
                    path.unlink()


class Tally:
    """Counts what is here, from several threads, and writes it to progress.json now and then."""

    def __init__(self, entry: Entry, total_bytes: int) -> None:
        self._path = entry.path / "progress.json"
        self._total_bytes = total_bytes
        self._fetching = False
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        self._next_s = time.monotonic() + PROGRESS_PERIOD_S

    def set(self, name: str, count: int) -> None:
        """So many bytes of this file are here."""
        with self._lock:
            self._done[name] = count
        self._write_when_due()

    def add(self, name: str, count: int) -> None:
        """So many bytes more; fewer, if negative."""
        with self._lock:
            self._done[name] = self._done.get(name, 0) + count
        self._write_when_due()

    def begin_to_fetch(self) -> None:
        """What is not here yet has to be fetched."""
        self._fetching = True

    def write(self) -> None:
        with self._lock:
            done_bytes = min(sum(self._done.values()), self._total_bytes)
            progress = Progress(done_bytes=done_bytes, total_bytes=self._total_bytes, fetching=self._fetching)
            _write_whole(self._path, progress.model_dump())

    def _write_when_due(self) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PROGRESS_PERIOD_S
            self.write()


class Checks:
    """Compares files with a manifest, and reads through only what it has not read as it is now."""

    def __init__(self, entry: Entry) -> None:
        self._path = entry.path / "checked.json"
        self._lock = threading.Lock()
        self._passed: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):  # cut off by a power loss: everything is read once more
            self._passed = dict(json.loads(self._path.read_bytes()))

    def problem(self, path: Path, wanted: ManifestFile) -> str | None:
        """What is wrong with a file, in words that name it; None when it is what the manifest says."""
        if not path.is_file():
            return f"{wanted.name} is missing from the model's folder"
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_size != wanted.size_bytes:
                return other_size(wanted, stat.st_size)
            # Any write sets the last of these to the clock's time, so a file whose time was put back is read again.
            mark = [wanted.sha256, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
            with self._lock:
                if self._passed.get(str(path)) == mark:
                    return None
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted.sha256:
                return (
                    f"{wanted.name} is not what its manifest says, though of the same size: it was changed or damaged"
                )
        with self._lock:
            self._passed[str(path)] = mark
            _write_whole(self._path, self._passed)
        return None


def other_size(wanted: ManifestFile, size_bytes: int) -> str:
    """What is wrong with a file of this size."""
    return f"{wanted.name} has {size_bytes} bytes, its manifest says {wanted.size_bytes}: it was changed"


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    """As JSON, so that a reader sees the old or the new. Only one process writes, for it holds the entry's lock."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)
