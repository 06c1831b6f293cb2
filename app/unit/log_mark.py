"""How far the log of a unit's engine has been brought, in a file beside the log.

The file is locked as long as the unit lives: so the next unit on the node knows which logs are nobody's any more.
"""

import fcntl
import os
from contextlib import closing, suppress
from pathlib import Path

SUFFIX = ".shipped"


class LogMark:
    """Of one log; this process's own until it is closed."""

    def __init__(self, log_file: Path):
        """Raises BlockingIOError when another process, which lives, has it."""
        path = log_file.with_name(log_file.name + SUFFIX)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self._file.close()
            raise
        self.offset = 0
        """In bytes; what lies before it has been brought."""
        with suppress(ValueError):
            self.offset = int(os.pread(self._file.fileno(), 64, 0))

    def move(self, offset: int) -> None:
        """Write down that everything before `offset` has been brought."""
        self.offset = offset
        os.pwrite(self._file.fileno(), f"{offset:020}\n".encode(), 0)

    def close(self) -> None:
        """Leave it to another process."""
        self._file.close()


def remove_left(log_dir: Path) -> None:
    """Remove the marks of logs that are gone."""
    for path in log_dir.glob(f"engine-ep-*{SUFFIX}"):
        log_file = path.with_suffix("")
        if not log_file.exists():
            with suppress(OSError), closing(LogMark(log_file)):
                path.unlink()
