"""Landlock: which files a process may still reach (linux/landlock.h)."""

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.libc import check, libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE, _TRUNCATE = (
    1 << 1,
    1 << 4,
    1 << 5,
    1 << 7,
    1 << 8,
    1 << 14,
)
_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _TRUNCATE
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""By the version that brought them. All are taken away, and given back by rules."""
_TCP_VERSION, _SCOPE_VERSION = 4, 6


def limit_files(readable: Iterable[Path], writable: Path | None) -> None:
    """Leave this process the right to read `readable`, and to read and write below `writable`; for good.

    Does nothing on a kernel without Landlock. Raises OSError.
    """
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return
    files = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    tcp = 0b11 if version >= _TCP_VERSION else 0  # bind, connect
    scope = 0b11 if version >= _SCOPE_VERSION else 0  # abstract sockets of others, signals to others
    attributes = struct.pack("QQQ", files, tcp, scope)
    size = 24 if scope else 16 if tcp else 8
    rules = check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    for path in readable:
        with suppress(FileNotFoundError):
            _allow(rules, path, _READ)
    if writable:
        _allow(rules, writable, (_READ | _WRITE) & files)
    check(libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0)))
    os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    handle = os.open(path, os.O_PATH)
    try:
        if not path.is_dir():
            rights &= _READ_FILE
        rule = struct.pack("=Qi", rights, handle)
        check(libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0)))
    finally:
        os.close(handle)
