"""What processes and all that they have started take of their machine, as Linux counts it under /proc.

Reading a process's memory map makes the kernel walk it, and holds the process up meanwhile. So memory is read once a
minute at most, and less often where it takes long: never more than a thousandth of the time.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

MEMORY_PERIOD_S = 60.0
MEMORY_SHARE = 0.001
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessUse:
    """CPU and memory of `roots` and their descendants. Processes that end meanwhile are left out."""

    def __init__(self, roots: Iterable[int], clock: Callable[[], float] = time.monotonic):
        self._roots = tuple(roots)
        self._clock = clock
        self._processes: list[int] = []
        self._cpu_s: dict[int, float] = {}
        self._cpu_at = 0.0
        self._memory_bytes: int | None = None
        self._memory_due_at = -1.0

    def read(self) -> tuple[float | None, int | None]:
        """CPU time since the last reading in percent of one core (None at first), and bytes of memory. Blocks."""
        now = self._clock()
        if now >= self._memory_due_at:
            self._processes = list(_with_descendants(self._roots))
            self._memory_bytes = _sum_of(_memory_bytes, self._processes)
            took_s = self._clock() - now
            self._memory_due_at = now + max(MEMORY_PERIOD_S, took_s / MEMORY_SHARE)
        return self._cpu_pct(now), self._memory_bytes

    def _cpu_pct(self, now: float) -> float | None:
        cpu_s = {}
        for pid in self._processes:
            with suppress(OSError, ValueError, IndexError):
                cpu_s[pid] = _cpu_s(pid)
        used_s = sum(spent_s - self._cpu_s.get(pid, 0.0) for pid, spent_s in cpu_s.items())
        passed_s = now - self._cpu_at
        first = not self._cpu_s
        self._cpu_s, self._cpu_at = cpu_s, now
        return None if first or passed_s <= 0 else round(max(0.0, used_s) / passed_s * 100, 2)


def _with_descendants(roots: Iterable[int]) -> Iterable[int]:
    for pid in roots:
        yield pid
        children: set[int] = set()
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                children |= {int(child) for child in path.read_text().split()}
        yield from _with_descendants(sorted(children))


def _cpu_s(pid: int) -> float:
    # What follows the name, which may hold spaces and brackets: the 12th and 13th are user and system time in ticks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _memory_bytes(pid: int) -> int:
    """Its proportional share; shared pages, such as imported code, are divided among those that have them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("the kernel does not tell the proportional share")


def _sum_of(read: Callable[[int], int], processes: Iterable[int]) -> int | None:
    found = []
    for pid in processes:
        with suppress(OSError, ValueError):
            found.append(read(pid))
    return sum(found) if found else None
