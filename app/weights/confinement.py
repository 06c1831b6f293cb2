"""What a process gives up for good before it touches untrusted content: rights, system calls, folders, resources.

Linux only. Everything is done by the process to itself, needs no privilege, and cannot be undone. What a kernel may
lack: Landlock (before 5.13, or switched off) limits the file system; without it files that this user may read stay
readable, and below `writable` is not the only place that can be written. Seccomp filters forbid system calls; on a
processor other than x86-64 and AArch64, or on a kernel built without them, none are installed, and then a process
still has no privileges, no environment and no room to fork, but could open a socket or start a program.
"""

import ctypes
import math
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from app.libc import check, libc, prctl
from app.weights.landlock import limit_files
from app.weights.seccomp import forbid_calls

OPEN_FILES = 256

_PR_SET_NO_NEW_PRIVS = 38

_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/dev/null", "/dev/zero", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo",
    "/sys/devices/system/cpu",
)  # fmt: skip


def confine(
    readable: Iterable[Path], writable: Path | None, *, memory_bytes: int, time_s: float, file_bytes: int
) -> None:
    """Confine this process, and all it may ever start. Raises OSError when the system refuses.

    It may read `readable` and Python's own folders, write below `writable` files of at most `file_bytes`, map
    `memory_bytes` more than now, and use `time_s` of CPU. It can start neither process nor thread.
    """
    _limit(memory_bytes, time_s, file_bytes if writable else 0)
    check(prctl(_PR_SET_NO_NEW_PRIVS, 1))
    limit_files([*readable, *_own_folders()], writable)
    _drop_capabilities()
    forbid_calls(read_only=writable is None)


def forget_environment() -> None:
    """Empty this process's environment, also as the kernel shows it in /proc."""
    os.environ.clear()
    # The block on the stack keeps what was there at the start; its bounds are fields 50 and 51 (proc(5)).
    fields = Path("/proc/self/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def mapped_bytes() -> int:
    """How much address space this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(memory_bytes: int, time_s: float, file_bytes: int) -> None:
    cpu_s = math.ceil(time_s) + 1
    address_space_bytes = mapped_bytes() + memory_bytes
    limits = {
        resource.RLIMIT_AS: address_space_bytes,
        resource.RLIMIT_DATA: address_space_bytes,  # part of it; this process's own limit is not the one meant
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,  # counts all of a user's threads, so that no number but this would mean anything
    }
    for name, limit in limits.items():
        _, hard = resource.getrlimit(name)
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (allowed, allowed))


def _drop_capabilities() -> None:
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    check(libc.capset(header, bytes(24)))


def _own_folders() -> Iterator[Path]:
    """What Python may still have to import, and what its libraries read."""
    yield from (Path(path) for path in _SYSTEM)
    yield from (Path(path) for name, path in sysconfig.get_paths().items() if "lib" in name)  # ...lib, also ...stdlib
    yield Path(sys.base_prefix) / "lib"
    yield Path(__file__).parents[1]
