"""What a process gives up for good before it touches untrusted content: rights, system calls, folders, resources.

Linux only. Everything is done by the process to itself, needs no privilege, and cannot be undone. What a kernel may
lack: Landlock (before 5.13, or switched off) limits the file system; without it files that this user may read stay
readable, and below `writable` is not the only place that can be written. Seccomp filters forbid system calls; on a
processor other than x86-64 and AArch64, or on a kernel built without them, none are installed, and then a process
still has no privileges, no environment and no room to fork, but could open a socket or start a program.
"""

import ctypes
import errno
import math
import os
import platform
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

OPEN_FILES = 256

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_PR_SET_PDEATHSIG, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 21, 22, 38


def confine(
    readable: Iterable[Path], writable: Path | None, *, memory_bytes: int, time_s: float, file_bytes: int
) -> None:
    """Confine this process, and all it may ever start. Raises OSError when the system refuses.

    It may read `readable` and Python's own folders, write below `writable` files of at most `file_bytes`, map
    `memory_bytes` more than now, and use `time_s` of CPU. It can start neither process nor thread.
    """
    _limit(memory_bytes, time_s, file_bytes if writable else 0)
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1))
    _landlock([*readable, *_own_folders()], writable)
    _drop_capabilities()
    _seccomp(read_only=writable is None)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel end this process when the thread that forked it ends."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal_number))


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
    _check(_libc.capset(header, bytes(24)))


def _prctl(option: int, value: int, address: object = None) -> int:
    rest = ctypes.c_ulong(0)
    return int(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), address, rest, rest))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# ---- Landlock: which files (linux/landlock.h)

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

_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/dev/null", "/dev/zero", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo",
    "/sys/devices/system/cpu",
)  # fmt: skip


def _own_folders() -> Iterator[Path]:
    """What Python may still have to import, and what its libraries read."""
    yield from (Path(path) for path in _SYSTEM)
    yield from (Path(path) for name, path in sysconfig.get_paths().items() if "lib" in name)  # ...lib, also ...stdlib
    yield Path(sys.base_prefix) / "lib"
    yield Path(__file__).parents[1]


def _landlock(readable: Sequence[Path], writable: Path | None) -> None:
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return
    files = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    tcp = 0b11 if version >= _TCP_VERSION else 0  # bind, connect
    scope = 0b11 if version >= _SCOPE_VERSION else 0  # abstract sockets of others, signals to others
    attributes = struct.pack("QQQ", files, tcp, scope)
    size = 24 if scope else 16 if tcp else 8
    rules = _check(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    for path in readable:
        with suppress(FileNotFoundError):
            _allow(rules, path, _READ)
    if writable:
        _allow(rules, writable, (_READ | _WRITE) & files)
    _check(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0)))
    os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    handle = os.open(path, os.O_PATH)
    try:
        if not path.is_dir():
            rights &= _READ_FILE
        rule = struct.pack("=Qi", rights, handle)
        _check(_libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0)))
    finally:
        os.close(handle)


# ---- seccomp: which system calls (linux/seccomp.h, linux/filter.h)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables below, and the kernel's own number."""

_FORBIDDEN = {
    # A network, or what could stand for one.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # Other programs, processes and threads.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "clone": (56, 220),
    "clone3": (435, 435),
    # Hold of other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "kcmp": (312, 272),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "setpriority": (141, 140),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122), "ioprio_set": (251, 30),
    # Another view of the system, and large parts of the kernel that nothing here needs.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "bpf": (321, 280), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "open_by_handle_at": (304, 265),
    # Memory that RLIMIT_AS does not count.
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180),
    # Undoing this.
    "prctl": (157, 167), "setrlimit": (160, 164),
    # Changes to files that Landlock lets pass.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
_CHANGES = {
    "creat": (85, None), "truncate": (76, 45), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None),
    "mknodat": (259, 33),
}  # fmt: skip
"""Forbidden as well where nothing may be written, so that this does not hang on Landlock."""
_OPENS = {"open": ((2, None), 1), "openat": ((257, 56), 2)}
"""With the place of their flags among the arguments."""
_OPENAT2 = 437  # its flags lie in memory, where no filter can look; libraries fall back on openat
_SIGNALS = {"kill": (62, 129), "tgkill": (234, 131)}
_PRLIMIT = (302, 261)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF: 32-bit words, constants
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_FILTER_MODE = 2

_Step = tuple[int, int, int, int]
"""Operation, steps to skip if true, if false, constant."""


def _seccomp(*, read_only: bool) -> None:
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None or (_prctl(_PR_GET_SECCOMP, 0) < 0 and ctypes.get_errno() == errno.EINVAL):
        return
    steps = list(_filter(*architecture, read_only=read_only))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    _check(_prctl(_PR_SET_SECCOMP, _FILTER_MODE, header))


def _filter(column: int, architecture: int, *, read_only: bool) -> Iterator[_Step]:
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER)
    yield (_AT_LEAST, 0, 1, _X32)
    yield (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    for numbers in (_FORBIDDEN | (_CHANGES if read_only else {})).values():
        if (number := numbers[column]) is not None:
            yield (_EQUAL, 0, 1, number)
            yield (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    yield (_EQUAL, 0, 1, _OPENAT2)
    yield (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)
    for numbers in _SIGNALS.values():  # to itself only: this is how abort() ends a process
        yield (_EQUAL, 0, 4, numbers[column])
        yield (_LOAD, 0, 0, _ARGUMENTS)
        yield (_EQUAL, 0, 1, os.getpid())
        yield (_RETURN, 0, 0, _ALLOW)
        yield (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    yield (_EQUAL, 0, 6, _PRLIMIT[column])  # asking only: the new limits, a pointer of two words, are none
    yield (_LOAD, 0, 0, _ARGUMENTS + 16)
    yield (_EQUAL, 0, 3, 0)
    yield (_LOAD, 0, 0, _ARGUMENTS + 20)
    yield (_EQUAL, 0, 1, 0)
    yield (_RETURN, 0, 0, _ALLOW)
    yield (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    for numbers, flags in _OPENS.values() if read_only else ():
        if (number := numbers[column]) is not None:
            yield (_EQUAL, 0, 4, number)
            yield (_LOAD, 0, 0, _ARGUMENTS + 8 * flags)
            yield (_ANY_BIT, 0, 1, _WRITING)
            yield (_RETURN, 0, 0, _REFUSE | errno.EACCES)
            yield (_RETURN, 0, 0, _ALLOW)
    yield (_RETURN, 0, 0, _ALLOW)
