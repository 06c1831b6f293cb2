"""Seccomp: which system calls a process may still make (linux/seccomp.h, linux/filter.h)."""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

from app.libc import check, prctl

_PR_GET_SECCOMP, _PR_SET_SECCOMP = 21, 22

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


def forbid_calls(*, read_only: bool) -> None:
    """Take from this process, for good, what reaches beyond it; with `read_only` all that changes files as well.

    Does nothing on a kernel without filters, or on a processor whose calls are not known here. Raises OSError.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None or (prctl(_PR_GET_SECCOMP, 0) < 0 and ctypes.get_errno() == errno.EINVAL):
        return
    steps = list(_filter(*architecture, read_only=read_only))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    check(prctl(_PR_SET_SECCOMP, _FILTER_MODE, header))


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
