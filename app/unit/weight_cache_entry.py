"""One version in a node's weight cache: its files, who uses them, what has been checked of them.

    DIGEST/files/           the version's files; absent where the object store itself is on this machine
           compiled/        what engines have compiled for them: the next start has it
           lock             held by whoever fills, checks or removes
           use              held, shared, by every process that uses the files; its time says when last
           checked.json     which files had their sha256 compared
           progress.json    how far the newest fetching or checking is

A process that dies leaves its locks, and files of which nothing vouches but checked.json and their sha256.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.unit.weight_cache_checks import Checks
from app.unit.weight_cache_files import lock
from app.unit.weight_cache_progress import Progress, Tally, read_progress

_KEPT = {"lock", "use", "checked.json"}
"""What stays of an entry whose files are removed. Locks that are removed would be held by two."""


class Entry:
    """A folder of the cache. What changes files needs `lock`, what removes them `claimed`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = path / "files"
        self.compiled = path / "compiled"

    def lock(self, wait_s: float) -> BinaryIO:
        """The right to fill and to check, and a folder to do it in. Raises TimeoutError."""
        self.path.mkdir(parents=True, exist_ok=True)
        held = lock(self.path / "lock", wait_s)
        self.touch()
        return held

    def checks(self) -> Checks:
        """To compare files with; to be used while the lock is held."""
        return Checks(self.path / "checked.json")

    def tally(self, total_bytes: int) -> Tally:
        """To count a fetching or checking by; to be used while the lock is held."""
        return Tally(self._progress_file, total_bytes)

    def progress(self) -> Progress | None:
        """Of the newest fetching or checking; None when there was none."""
        return read_progress(self._progress_file)

    @property
    def _progress_file(self) -> Path:
        return self.path / "progress.json"

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
                idle = held.enter_context(self.unused())
            except TimeoutError:
                idle = False
            yield idle

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether nobody uses the files, which stays so until the block ends; to be asked while the lock is held."""
        with ExitStack() as held:
            try:
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

    def sweep(self, wanted: set[str]) -> None:
        """Remove all but the wanted files: what downloads that were killed have left."""
        for folder, _, names in os.walk(self.files):
            for path in (Path(folder, name) for name in names):
                if path.relative_to(self.files).as_posix() not in wanted:
                    path.unlink()
