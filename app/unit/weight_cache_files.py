"""Small files by which the processes of a node share its weight cache: locks, and notes that are read whole."""

import fcntl
import json
import time
from pathlib import Path
from typing import Any, BinaryIO

POLL_S = 0.1


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


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """As JSON, so that a reader sees the old or the new. Only one process writes, for it holds the entry's lock."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)
