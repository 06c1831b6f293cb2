"""How much of a version's weights is on this node: counted while it is fetched and checked, in a file for all."""

import threading
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.unit.weight_cache_files import write_whole

PERIOD_S = 1.0


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


def read_progress(path: Path) -> Progress | None:
    """What was written there last; None when there is nothing."""
    try:
        return Progress.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


class Tally:
    """Counts what is here, from several threads, and writes it to a file now and then."""

    def __init__(self, path: Path, total_bytes: int) -> None:
        self._path = path
        self._total_bytes = total_bytes
        self._fetching = False
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        self._next_s = time.monotonic() + PERIOD_S

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
        """Let everybody know now."""
        with self._lock:
            done_bytes = min(sum(self._done.values()), self._total_bytes)
            progress = Progress(done_bytes=done_bytes, total_bytes=self._total_bytes, fetching=self._fetching)
            write_whole(self._path, progress.model_dump())

    def _write_when_due(self) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PERIOD_S
            self.write()
