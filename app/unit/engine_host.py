"""The engine host: one process per node that has vLLM imported and forks an engine process for each unit.

Importing vLLM takes longer than loading a small model, and vLLM would do it in each of its processes. Here it
is done once per node: a forked engine is ready in a few seconds, and all engines share the imported code in memory.
The host never starts a thread, never touches a device and never runs an operator, which is what makes forking safe.

    python -m app.unit.engine_host RUN_DIR [--preload]
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from app.unit import engine_worker
from app.unit.engine import EngineLaunch

SOCKET = "engine_host.sock"
LAUNCH_LIMIT_BYTES = 1 << 20
KEPT_LOGS = 50
"""Of engines, the newest ones; each start has a log of its own."""
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


def connect(run_dir: Path, timeout_s: float) -> socket.socket:
    """A connection to this node's engine host, which is started if there is none.

    Raises TimeoutError when none answers in time.
    """
    deadline = time.monotonic() + timeout_s
    started = False
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            with _short(run_dir) as folder:
                connection.connect(f"{folder}/{SOCKET}")
            return connection
        except OSError:
            connection.close()
        if not started:
            start(run_dir, os.environ, preload=False)
            started = True
        if time.monotonic() > deadline:
            raise TimeoutError(f"the engine host did not answer within {timeout_s:.0f} s; see its log")
        time.sleep(0.05)


def start(run_dir: Path, environment: Mapping[str, str], *, preload: bool) -> None:
    """Start a host, detached from this process; one that finds another running ends at once."""
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    log_file = run_dir.parent / "logs" / "engine-host.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "app.unit.engine_host", str(run_dir), *(["--preload"] if preload else [])]
    # Through a shell that ends at once: Ray kills the children of a replica that stops, and other units need the host.
    with log_file.open("ab") as output:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            env={**environment, **openmp()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            check=True,
            timeout=30,
        )


def openmp() -> dict[str, str]:
    """Intel's OpenMP for engines on CPU, as vLLM advises; in our runs no slower than GNU's."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    return {"LD_PRELOAD": str(library)} if library.exists() else {}


@contextlib.contextmanager
def _short(folder: Path):  # type: ignore[no-untyped-def]
    """A short name for `folder`: a unix socket's path holds 107 bytes, a home may be longer."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def main() -> None:
    """Serve until killed, or until the folder it serves from is gone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run_dir = Path(sys.argv[1])
    lock = (run_dir / "engine_host.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    os.set_inheritable(lock.fileno(), False)
    path = run_dir / SOCKET
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short(run_dir) as folder:
        listener.bind(f"{folder}/{SOCKET}")
    path.chmod(0o600)
    listener.listen(64)
    if "--preload" in sys.argv:
        _preload()
    children: set[int] = set()
    while path.exists():
        readable, _, _ = select.select([listener], [], [], 1.0)
        _reap(children)
        if readable:
            connection, _ = listener.accept()
            with connection:
                _serve(connection, listener, lock.fileno(), children)


def _preload() -> None:
    started = time.monotonic()
    importlib.import_module("app.unit.vllm_engine")
    gc.collect()
    gc.freeze()  # the collector would otherwise touch, and so copy, every page that the engines share
    threads = len(list(Path("/proc/self/task").iterdir()))
    log.info("imported the engine in %.1f s, %d threads", time.monotonic() - started, threads)


def _serve(connection: socket.socket, listener: socket.socket, lock: int, children: set[int]) -> None:
    """Read what to launch, and fork it."""
    try:
        connection.settimeout(5.0)
        line = b""
        while not line.endswith(b"\n"):
            part = connection.recv(65536)
            if not part or len(line) > LAUNCH_LIMIT_BYTES:
                return
            line += part
        connection.settimeout(None)
        launch = EngineLaunch.model_validate(json.loads(line))
        if launch.kind == "vllm":
            _preload()
    except Exception:
        log.exception("a launch was refused")
        return
    child = os.fork()
    if child:
        children.add(child)
        log.info("engine for %s is process %d", launch.endpoint_id, child)
        return
    try:
        listener.close()
        os.close(lock)
        _become_engine(launch)
        engine_worker.run(connection, launch)
    except BaseException:
        log.exception("the engine process failed")
    finally:
        os._exit(0)


def _become_engine(launch: EngineLaunch) -> None:
    """Turn the forked child into a process group of its own that dies with its parent and logs to its own file."""
    os.setsid()
    _die_with_parent()
    os.register_at_fork(after_in_child=_die_with_parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap(children: set[int]) -> None:
    """Collect ended engines, and end what they left of their process group (vLLM's core)."""
    for child in list(children):
        ended, _ = os.waitpid(child, os.WNOHANG)
        if ended:
            children.discard(child)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
