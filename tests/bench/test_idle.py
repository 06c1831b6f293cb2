"""What processes cost, shown by some that are made to cost much or nothing."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

from app.bench import idle

WINDOW_S = 1.0
BURN = "print('ready', flush=True)\nwhile True: pass"
WAIT = "print('ready', flush=True)\ninput()"
HOLD = f"held = bytearray(b'x') * (64 << 20)\n{WAIT}"
BURN_THEN_WAIT = f"import time\nwhile time.process_time() < 0.5: pass\n{WAIT}"

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "WINDOW_S", WINDOW_S)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python programs that print a line once they are at work; all are ended."""
    started = []

    def start_one(program: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def test_a_busy_process_costs_cpu_and_an_idle_one_does_not(start: Start) -> None:
    busy, waiting = start(BURN), start(WAIT)
    assert 10 < idle.cost([psutil.Process(busy.pid)])[0] < 120  # it shares the cores with other tests
    assert idle.cost([psutil.Process(waiting.pid)])[0] < 5


def test_memory_is_counted_in_bytes_over_all_processes(start: Start) -> None:
    small, large = (psutil.Process(start(program).pid) for program in (WAIT, HOLD))
    (_, one), (_, both) = idle.cost([small]), idle.cost([small, large])
    assert 1 << 20 < one < 64 << 20
    assert 64 << 20 < both - one < 128 << 20


def test_a_process_that_ends_meanwhile_takes_back_nothing(start: Start) -> None:
    """What it had used before must not count against what the others use in the window."""
    ending = start(BURN_THEN_WAIT)
    process = psutil.Process(ending.pid)
    end = threading.Timer(WINDOW_S / 4, ending.communicate, ["\n"])
    end.start()
    cpu_pct, _ = idle.cost([process])
    end.join()
    assert ending.returncode == 0
    assert cpu_pct == 0


def test_what_has_ended_before_costs_nothing(start: Start) -> None:
    ended = start(WAIT)
    process = psutil.Process(ended.pid)
    ended.communicate("\n")
    assert idle.cost([process]) == (0.0, 0)
