"""Calls of the C library and of the Linux kernel that Python's own modules do not have."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def prctl(option: int, value: int, address: object = None) -> int:
    """prctl(2); what it returns may be an error, for `check` to raise."""
    rest = ctypes.c_ulong(0)
    return int(libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), address, rest, rest))


def check(result: int) -> int:
    """What a call returned. Raises OSError when that means that it failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    check(prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
