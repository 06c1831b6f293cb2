"""A process per node that has slow imports behind it, and forks a child for each connection.

A child is ready at once, and all share the imported code in memory. The server never starts a thread, never touches
a device and never runs an operator, which is what makes forking safe. The engine host and the validator are such
servers: `python -m MODULE RUN_DIR [OPTION...]`, with a module that calls `serve`.
"""

import contextlib
import fcntl
import gc
import logging
import math
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from app.libc import die_with_parent

REQUEST_LIMIT_BYTES = 1 << 20
LOG_LIMIT_BYTES = 8 << 20
START_AGAIN_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What a forked child does with its connection. The child ends when this returns; `name` is for the log."""

    name: str
    run: Callable[[socket.socket], None]


@dataclass(frozen=True, slots=True)
class ForkServer:
    """One kind of server; at most one of it serves a folder."""

    name: str
    """Of its socket and lock in the folder it serves, and of its log beside that folder."""
    module: str

    @property
    def socket_name(self) -> str:
        """The file's name."""
        return f"{self.name}.sock"

    def connect(self, run_dir: Path, timeout_s: float, start: Callable[[], None]) -> socket.socket:
        """A connection to the folder's server, which is started by `start` if there is none.

        Raises TimeoutError when none answers in time.
        """
        deadline = time.monotonic() + timeout_s
        start_at = time.monotonic()
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                with _short(run_dir) as folder:
                    connection.connect(f"{folder}/{self.socket_name}")
                return connection
            except OSError:
                connection.close()
            if time.monotonic() >= start_at:
                start()
                start_at = time.monotonic() + START_AGAIN_S  # the one that was there may have been about to end
            if time.monotonic() > deadline:
                title = self.name.replace("_", " ")
                raise TimeoutError(f"the {title} did not answer within {timeout_s:.0f} s; see its log")
            time.sleep(0.05)

    def start(self, run_dir: Path, environment: Mapping[str, str], *options: str) -> None:
        """Start a server, detached from this process; one that finds another running ends at once."""
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        log_file = run_dir.parent / "logs" / f"{self.name.replace('_', '-')}.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", self.module, str(run_dir), *options]
        # Through a shell that ends at once: Ray kills the children of a replica that stops, and others need the server.
        with log_file.open("ab") as output:
            subprocess.run(
                ["/bin/sh", "-c", '"$@" &', "sh", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                check=True,
                timeout=30,
            )

    def serve(
        self,
        run_dir: Path,
        read: Callable[[bytes], Job],
        *,
        warm_up: Callable[[], None] = lambda: None,
        idle_s: float = math.inf,
    ) -> None:
        """Fork a child for each connection, whose first line `read` turns into its job.

        Serves until killed, until the socket is gone, or until nothing was asked for `idle_s`. Connections wait
        during `warm_up`. Children die with the server; a line of which `read` makes no job is logged.
        """
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        path = run_dir / self.socket_name
        lock = _lock(run_dir / f"{self.name}.lock", path)
        if lock is None:
            return
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        with _short(run_dir) as folder:
            listener.bind(f"{folder}/{self.socket_name}")
        path.chmod(0o600)
        listener.listen(64)
        warm_up()
        children: set[int] = set()
        busy_at = time.monotonic()
        while path.exists():
            _answer(listener, lock, children, read, wait_s=1.0)
            if children:
                busy_at = time.monotonic()
            elif time.monotonic() - busy_at > idle_s:
                break
        else:
            return
        # The next server may start; who reached this one is served.
        path.unlink(missing_ok=True)
        lock.close()
        while _answer(listener, lock, children, read, wait_s=0.0) or children:
            time.sleep(0.05)


def freeze() -> None:
    """Call when everything is imported: the collector would touch, and so copy, every page that children share."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A short name for `folder`: a unix socket's path holds 107 bytes, a home may be longer."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _lock(path: Path, socket_path: Path) -> TextIO | None:
    """The lock, or None when another server holds it that has its socket; one without is about to end."""
    lock = path.open("w")
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if socket_path.exists() or not path.exists():
                lock.close()
                return None
        time.sleep(0.05)


def _answer(
    listener: socket.socket, lock: TextIO, children: set[int], read: Callable[[bytes], Job], *, wait_s: float
) -> bool:
    """Take one connection, if one comes in time. Returns whether one came; a child returns never."""
    readable, _, _ = select.select([listener], [], [], wait_s)
    _reap(children)
    _bound_log()
    if not readable:
        return False
    connection, _ = listener.accept()
    with connection:
        try:
            line = _first_line(connection)
            if not line:
                return True  # it only wanted to know whether somebody is here
            job = read(line)
            child = os.fork()
        except Exception:
            log.exception("a request was refused")
            return True
        if child:
            children.add(child)
            log.info("%s is process %d", job.name, child)
            return True
        try:
            listener.close()
            lock.close()
            _be_child()
            job.run(connection)
        except BaseException:
            log.exception("%s failed", job.name)
        finally:
            os._exit(0)


def _first_line(connection: socket.socket) -> bytes:
    connection.settimeout(5.0)
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(65536)
        if not part and not line:
            break
        if not part or len(line) > REQUEST_LIMIT_BYTES:
            raise ConnectionError("no whole line came")
        line += part
    connection.settimeout(None)
    return line


def _be_child() -> None:
    """A process group of its own, that dies with the server; so do the processes it forks with it."""
    os.setsid()
    die_with_parent()
    os.register_at_fork(after_in_child=die_with_parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _reap(children: set[int]) -> None:
    """Collect ended children, and end what they left of their process group."""
    for child in list(children):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            children.discard(child)
            if os.WIFSIGNALED(status):
                log.warning("process %d was ended by signal %d", child, os.WTERMSIG(status))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)


def _bound_log() -> None:
    """What `start` made standard error is kept below a limit; nobody else would."""
    found = os.fstat(2)
    if stat.S_ISREG(found.st_mode) and found.st_size > LOG_LIMIT_BYTES:
        os.ftruncate(2, 0)
