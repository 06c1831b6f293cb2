"""The processes of fork servers that tests start, and waiting for what they do."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

WAIT_S = 60


def servers(module: str, run_dir: Path) -> list[psutil.Process]:
    """Those that serve a folder, without the children that they forked."""
    found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[2:4] == [module, str(run_dir)]]
    return [p for p in found if p.ppid() not in {other.pid for other in found}]


def end_servers(module: str, run_dir: Path) -> None:
    """Kill them."""
    found = servers(module, run_dir)
    for server in found:
        server.kill()
    until(lambda: all(has_ended(server.pid) for server in found))


def has_ended(pid: int) -> bool:
    """Not whether it is gone: whoever has to collect it may be in no hurry."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be true in a moment."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
