"""Folders in which the processes of an engine find each other's sockets: one for each engine, gone when it is gone.

vLLM names its sockets at random and puts them into the temporary folder, where they stay when an engine is killed.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def sweep(run_dir: Path) -> None:
    """Remove what is here, for when no engine runs."""
    shutil.rmtree(_parent(run_dir), ignore_errors=True)


@contextlib.contextmanager
def socket_folder(run_dir: Path) -> Iterator[str]:
    """An empty folder of this process, under a name that other processes may use as long as the block runs.

    The name is short, for a unix socket's path holds 107 bytes and a home may be longer. Folders of processes that
    were killed are removed first.
    """
    for path in _parent(run_dir).glob("*"):
        if path.name == str(os.getpid()) or not Path("/proc", path.name).exists():
            shutil.rmtree(path, ignore_errors=True)
    folder = _parent(run_dir) / str(os.getpid())
    folder.mkdir(parents=True, mode=0o700)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _parent(run_dir: Path) -> Path:
    return run_dir / "engines"
