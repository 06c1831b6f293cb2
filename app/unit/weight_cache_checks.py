"""Whether files are what a manifest says."""

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.store.layout import ManifestFile
from app.unit.weight_cache_files import write_whole


class Checks:
    """Compares files with a manifest, and reads through only what it has not read as it is now."""

    def __init__(self, path: Path) -> None:
        """`path`: where it is written down what was read."""
        self._path = path
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
            write_whole(self._path, self._passed)
        return None


def other_size(wanted: ManifestFile, size_bytes: int) -> str:
    """What is wrong with a file of this size."""
    return f"{wanted.name} has {size_bytes} bytes, its manifest says {wanted.size_bytes}: it was changed"
