import secrets
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from app import processes

WAIT_S = 20
CHILD = "import sys; print('up', flush=True); sys.stdin.read()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env={{"PATH": "/bin"}}, stdout=subprocess.PIPE,
                         stdin=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


class Started:
    """A process of the test; `said` is its first line."""

    def __init__(self, program: str, mark: str | None):
        environment = {"PATH": "/bin"} | ({processes.MARK: mark} if mark else {})
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline().strip()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@pytest.fixture
def run_id() -> Iterator[str]:
    run_id = secrets.token_hex(8)
    yield run_id
    processes.stop(run_id, 0)


@pytest.fixture
def unmarked() -> Iterator[Started]:
    started = Started(CHILD, None)
    yield started
    started.process.kill()
    started.process.communicate()


def close(*all_started: Started) -> None:
    for started in all_started:
        started.process.communicate(timeout=WAIT_S)


def pids(run_id: str) -> set[int]:
    return {process.pid for process in processes.marked(run_id)}


def test_a_marked_process_is_found_with_a_child_that_lost_the_mark(run_id: str, unmarked: Started) -> None:
    parent = Started(PARENT, run_id)
    assert pids(run_id) == {parent.pid, int(parent.said)}
    close(parent)


def test_another_run_is_not_found(run_id: str) -> None:
    longer = Started(CHILD, f"{run_id}0")
    assert pids(run_id) == set()
    assert pids(f"{run_id}0") == {longer.pid}
    assert processes.stop(f"{run_id}0", WAIT_S) == 1
    close(longer)


def test_stop_ends_the_run_and_nothing_else(run_id: str, unmarked: Started) -> None:
    parent = Started(PARENT, run_id)
    started = time.monotonic()
    assert processes.stop(run_id, WAIT_S) == 2
    assert time.monotonic() - started < WAIT_S
    assert pids(run_id) == set()
    close(parent)
    assert unmarked.alive


def test_what_ignores_the_request_is_killed_after_the_patience(run_id: str, unmarked: Started) -> None:
    stubborn = Started(STUBBORN, run_id)
    started = time.monotonic()
    assert processes.stop(run_id, patience_s=0.3) == 1
    assert time.monotonic() - started > 0.3
    assert pids(run_id) == set()
    close(stubborn)
    assert unmarked.alive


def test_stopping_what_does_not_run_is_nothing(run_id: str) -> None:
    assert processes.stop(run_id, WAIT_S) == 0
