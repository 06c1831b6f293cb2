"""CPU and memory of real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from app.unit.process_use import MEMORY_PERIOD_S, ProcessUse

WAIT_S = 20
BUSY_FOR_S = 0.3
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=sys.stdout)
child.wait()
"""
CHILD = f"""
import sys, time
held = bytearray(b"x") * (64 << 20)
print("ready", flush=True)
end = time.process_time() + {BUSY_FOR_S}
while time.process_time() < end:
    pass
print("done", flush=True)
time.sleep({WAIT_S})
"""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process whose child takes 64 MiB, and then CPU time."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_what_descendants_take_is_counted(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout
    clock = Clock()
    use = ProcessUse([parent.pid], clock)
    assert parent.stdout.readline() == "ready\n"
    cpu_pct, memory_bytes = use.read()
    assert cpu_pct is None
    assert memory_bytes is not None
    assert 64 << 20 < memory_bytes < 256 << 20
    assert parent.stdout.readline() == "done\n"
    clock.now += 10.0
    cpu_pct, _ = use.read()
    assert cpu_pct is not None
    assert 0.5 * BUSY_FOR_S * 10 < cpu_pct < 1.5 * BUSY_FOR_S * 10  # of one core, over ten seconds
    clock.now += 10.0
    assert use.read()[0] == pytest.approx(0.0, abs=0.5)


def test_memory_is_read_once_a_minute(parent: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    clock = Clock()
    use = ProcessUse([parent.pid], clock)
    first = use.read()[1]
    monkeypatch.setattr("app.unit.process_use._memory_bytes", lambda pid: 5)
    clock.now += MEMORY_PERIOD_S - 1
    assert use.read()[1] == first
    clock.now += 1
    assert use.read()[1] == 10


def test_memory_that_takes_long_to_read_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    sizes = iter([1, 2, 3])

    def slow(pid: int) -> int:
        clock.now += 0.5
        return next(sizes)

    monkeypatch.setattr("app.unit.process_use._memory_bytes", slow)
    monkeypatch.setattr("app.unit.process_use._with_descendants", lambda roots: roots)  # other tests' children
    use = ProcessUse([os.getpid()], clock)
    begun = clock.now
    assert use.read()[1] == 1
    clock.now = begun + 499
    assert use.read()[1] == 1
    clock.now = begun + 501
    assert use.read()[1] == 2


def test_processes_that_are_gone_are_no_trouble() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    clock = Clock()
    use = ProcessUse([ended.pid], clock)
    assert use.read() == (None, None)
    clock.now += 1
    assert use.read() == (None, None)


def test_a_reading_costs_little() -> None:
    """It happens beside an engine that wants every core."""
    use = ProcessUse([os.getpid()])
    use.read()
    begun = time.process_time()
    for _ in range(100):
        use.read()
    assert (time.process_time() - begun) / 100 < 0.002
