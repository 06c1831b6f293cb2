"""What engines have compiled for a version's files: kept for the next start, and removed where that is in doubt."""

import ast
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.unit.weight_cache_entry import Entry

MOST_BYTES = 1 << 30
"""Each configuration of an engine adds to it, and none takes anything away."""
UNUSED_S = 30 * 86_400.0
INDEX = "vllm_compile_cache.py"
"""Where vLLM lists what it has compiled. It writes it in place, and with one that was cut off it does not start."""


def tidy(entry: Entry) -> None:
    """Remove what a killed engine has left half written, and all of it where that is too much and nobody uses it.

    Whoever calls holds the entry's lock. An engine that is just writing loses what it writes, and nothing else.
    """
    total_bytes = 0
    for file in _files(entry.compiled):
        with suppress(FileNotFoundError):
            total_bytes += file.lstat().st_size
            if file.name == INDEX and not _is_whole(file):
                file.unlink()
    if total_bytes > MOST_BYTES:
        with entry.unused() as unused:
            if unused:
                _remove(entry)


def remove_unused(cache_dir: Path) -> None:
    """What was compiled for files that lie elsewhere and that nobody used for UNUSED_S: no want of room removes it."""
    for other in map(Entry, cache_dir.iterdir()):
        if other.compiled.exists() and not other.files.exists() and other.used_at < time.time() - UNUSED_S:
            with other.claimed() as unused:
                if unused:
                    _remove(other)


def _files(folder: Path) -> Iterator[Path]:
    return (Path(place, name) for place, _, names in os.walk(folder) for name in names)


def _is_whole(index: Path) -> bool:
    try:
        return isinstance(ast.literal_eval(index.read_text("utf-8")), dict)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _remove(entry: Entry) -> None:
    shutil.rmtree(entry.compiled, ignore_errors=True)
