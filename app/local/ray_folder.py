"""Where Ray keeps sockets, logs and what it spills. It lets everybody on the machine write there, so that the folder
around it belongs to this user alone.
"""

import contextlib
import secrets
import shutil
import tempfile
from pathlib import Path

from app.local.files import write_private
from app.settings import Settings

PREFIX = "mu-ray-"


def make(settings: Settings) -> Path:
    """What to give Ray as `--temp-dir`, which Ray makes itself.

    It is not in HOME, whose path may be too long for a socket's name.
    """
    private = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(4)}"
    write_private(_record(settings), str(private))  # first: whatever dies from here on, the folder is found again
    private.mkdir(mode=0o700)
    return private / "ray"


def remove(settings: Settings) -> None:
    """Forget the last one and what is in it, also when the run that made it was killed."""
    record = _record(settings)
    with contextlib.suppress(FileNotFoundError):
        private = Path(record.read_text())
        if private.name.startswith(PREFIX):
            shutil.rmtree(private, ignore_errors=True)
        record.unlink()


def _record(settings: Settings) -> Path:
    return settings.run_dir / "ray_folder"
