"""The processes of one platform on this machine, told apart by a mark in their environment.

Ray starts many processes on its own; each inherits the mark, so that exactly these can be stopped, whatever
else runs on the machine.
"""

import contextlib
import time

import psutil

MARK = "MODELUNIT_RUN"
"""The variable that holds the ID of the run a process belongs to."""


def marked(run_id: str) -> list[psutil.Process]:
    """Every living process of this run.

    A process that changes its title (Ray's workers do) overwrites its environment, so the children of marked
    processes count as well.
    """
    wanted = f"{MARK}={run_id}".encode()
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        # psutil would decode the whole environment of every process; the raw bytes are enough.
        with contextlib.suppress(OSError, psutil.NoSuchProcess), open(f"/proc/{process.pid}/environ", "rb") as environ:
            if wanted in environ.read().split(b"\0"):
                found |= {process, *process.children(recursive=True)}
    return sorted(found, key=lambda process: process.pid)


def stop(run_id: str, patience_s: float) -> int:
    """End every process of this run: asked first, killed after `patience_s`. Returns how many there were."""
    known: set[psutil.Process] = set()
    deadline = time.monotonic() + patience_s
    while True:
        new = set(marked(run_id)) - known
        known |= new  # children outlive the parents that show whose they are, so nothing is forgotten
        living = [process for process in known if _alive(process)]
        if not living:
            return len(known)
        late = time.monotonic() > deadline
        for process in living if late else new:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill() if late else process.terminate()
        psutil.wait_procs(living, timeout=0.2)


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
