"""The engine host: one process per node that has vLLM imported and forks an engine process for each unit.

Importing vLLM takes longer than loading a small model, and vLLM would do it in each of its processes. Here it
is done once per node: a forked engine is ready in a few seconds, and all engines share the imported code in memory.

    python -m app.unit.engine_host RUN_DIR [--preload]
"""

import contextlib
import functools
import importlib
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from app.fork_server import ForkServer, Job, freeze
from app.unit import engine_sockets, engine_worker
from app.unit.engine import EngineLaunch

SERVER = ForkServer("engine_host", "app.unit.engine_host")
SOCKET = SERVER.socket_name
KEPT_LOGS = 50
"""Of engines, the newest ones; each start has a log of its own."""

log = logging.getLogger(__name__)


def connect(run_dir: Path, timeout_s: float) -> socket.socket:
    """A connection to this node's engine host, which is started if there is none.

    Raises TimeoutError when none answers in time.
    """
    return SERVER.connect(run_dir, timeout_s, lambda: start(run_dir, os.environ, preload=False))


def prepare(run_dir: Path) -> None:
    """See to it that this node's engine host is there, or is about to be with vLLM imported. Does not wait."""
    with contextlib.suppress(TimeoutError):
        SERVER.connect(run_dir, 0, lambda: start(run_dir, os.environ, preload=True)).close()


def start(run_dir: Path, environment: Mapping[str, str], *, preload: bool) -> None:
    """Start a host, detached from this process; one that finds another running ends at once."""
    SERVER.start(run_dir, {**environment, **openmp()}, *(["--preload"] if preload else []))


def openmp() -> dict[str, str]:
    """Intel's OpenMP for engines on CPU, as vLLM advises; in our runs no slower than GNU's."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    return {"LD_PRELOAD": str(library)} if library.exists() else {}


def main() -> None:
    """Serve until killed, or until the folder it serves from is gone."""
    run_dir = Path(sys.argv[1])

    def warm_up() -> None:
        engine_sockets.sweep(run_dir)  # engines do not outlive their host, so these are left from the last one's
        if "--preload" in sys.argv:
            _preload()

    SERVER.serve(run_dir, functools.partial(_read_launch, run_dir), warm_up=warm_up)


def _preload() -> None:
    started = time.monotonic()
    importlib.import_module("app.unit.vllm_engine")
    freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    log.info("imported the engine in %.1f s, %d threads", time.monotonic() - started, threads)


def _read_launch(run_dir: Path, line: bytes) -> Job:
    launch = EngineLaunch.model_validate_json(line)
    if launch.kind == "vllm":
        _preload()
    return Job(f"engine for {launch.endpoint_id}", functools.partial(_be_engine, launch, run_dir))


def _be_engine(launch: EngineLaunch, run_dir: Path, connection: socket.socket) -> None:
    """Run the engine in a process that has its environment and logs to its own file."""
    os.environ.update(launch.environment)
    log_file = Path(launch.log_file)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    logs = sorted(log_file.parent.glob("engine-ep-*.log"), key=lambda path: path.stat().st_mtime)
    for old in logs[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    with engine_sockets.socket_folder(run_dir) as folder:
        os.environ["VLLM_RPC_BASE_PATH"] = folder
        engine_worker.run(connection, launch)


if __name__ == "__main__":
    main()
