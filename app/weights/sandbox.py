"""A function run on untrusted content, in a forked process that can do nothing but compute and answer."""

import fcntl
import gc
import json
import logging
import math
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from app.core.errors import without_paths
from app.libc import die_with_parent
from app.weights.confinement import confine, forget_environment

ANSWER_LIMIT_BYTES = 4 << 20
REASON_LIMIT = 500

Failure = Literal["time", "memory", "crash", "answer", "error", "setup"]

_ANSWER = 3  # the child's end of the pipe
_OUT_OF_MEMORY = re.compile("allocate memory|out of memory|bad_alloc", re.IGNORECASE)


class SandboxFailed(Exception):
    """The function gave no answer. The text is the reason, on one line and without paths.

    kind: `time` or `memory` used up, `crash` by a signal, `answer` too large or not JSON, `error` raised by the
    function, `setup` for a system that could not confine the process, for which the content cannot be blamed.
    """

    def __init__(self, kind: Failure, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason

    def __str__(self) -> str:
        return self.reason


def run(
    function: Callable[..., Any],
    *arguments: object,
    memory_bytes: int,
    time_s: float,
    writable: Path | None = None,
    file_bytes: int = 1 << 30,
) -> Any:
    """What `function(*arguments)` returns, as JSON brings it back. Raises SandboxFailed.

    The function runs in a fork of this process: what it needs is best imported here before. It sees no
    environment variable and no open file. It may read Python's own folders and the Paths among its arguments,
    and write below `writable`, files of at most `file_bytes`. It can start neither process nor thread. It gets
    `memory_bytes` of address space beyond this process's (which files mapped into memory count towards) and
    `time_s` seconds; an interval timer of its own ends it sooner. What app/weights/confinement.py says of other
    kernels holds here.

    Can be called from a thread, and where other threads run: the fork takes no lock of theirs, so a function
    that uses what they may be holding (an HTTP session, a pool) could wait for ever, which is a `time` failure.
    Memory is a copy of this process's: secrets that it holds could be read by code that broke out of Python,
    but have no way out except the answer.
    """
    reading, writing = os.pipe()
    deadline = time.monotonic() + time_s
    readable = [argument for argument in arguments if isinstance(argument, Path)]
    limits = partial(confine, readable, writable, memory_bytes=memory_bytes, time_s=time_s, file_bytes=file_bytes)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _be_child(parent, writing, limits, partial(function, *arguments))
    os.close(writing)
    try:
        answer = _collect(reading, child, deadline, time_s)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = _wait(child)
    return _read(answer, status, memory_bytes)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that; libraries have their own classes for it, so the text has to do."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def _wait(child: int) -> int:
    try:
        return os.waitpid(child, 0)[1]
    except ChildProcessError:  # somebody in this process waits for all children
        return 0


def _collect(reading: int, child: int, deadline: float, time_s: float) -> bytes:
    """Everything that the child writes until it ends."""
    process = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        poll.register(process, select.POLLIN)
        answer = b""
        while (left_s := deadline - time.monotonic()) > 0:
            ready = {handle for handle, _ in poll.poll(math.ceil(left_s * 1000))}
            if reading in ready:
                part = os.read(reading, 1 << 16)
                answer += part
                if len(answer) > ANSWER_LIMIT_BYTES:
                    raise SandboxFailed("answer", f"its answer is larger than {ANSWER_LIMIT_BYTES >> 20} MiB")
                if not part:
                    poll.unregister(reading)
            elif process in ready:
                return answer
    finally:
        os.close(process)
    raise SandboxFailed("time", f"it took longer than {time_s:g} s")


def _read(answer: bytes, status: int, memory_bytes: int) -> Any:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            raise SandboxFailed("time", "a step of it took too long")
        # Rust and C++ abort when memory runs out, so this may be all that is heard of it.
        raise SandboxFailed("crash", f"it crashed ({signal.strsignal(number) or number})")
    try:
        kind, value = json.loads(answer)
    except (ValueError, TypeError, RecursionError):
        raise SandboxFailed("crash", "it ended without an answer") from None
    match kind:
        case "value":
            return value
        case "memory":
            raise SandboxFailed("memory", f"it needs more than {memory_bytes >> 20} MiB of memory")
        case "answer" | "setup":
            raise SandboxFailed(kind, shown(value))
        case _:
            raise SandboxFailed("error", shown(value))


def shown(text: object) -> str:
    """A reason as others may see it: one line, no paths, not long."""
    return without_paths(" ".join(str(text).split()))[:REASON_LIMIT]


def _be_child(parent: int, writing: int, limits: Callable[[], None], call: Callable[[], Any]) -> NoReturn:
    """Never returns, so that nothing of the parent's is left or closed a second time."""
    try:
        gc.freeze()  # collecting the parent's objects would copy their pages, and close descriptors by number
        _leave_parent(parent, writing)
        answer = _answer(limits, call)
        while answer:
            answer = answer[os.write(_ANSWER, answer) :]
    finally:
        os._exit(0)


def _answer(limits: Callable[[], None], call: Callable[[], Any]) -> bytes:
    try:
        limits()
    except Exception as error:
        return json.dumps(["setup", f"{type(error).__name__}: {error}"]).encode()
    try:
        value = call()
    except MemoryError:
        return b'["memory", ""]'
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"[: 4 * REASON_LIMIT]
        return json.dumps(["memory" if is_out_of_memory(error) else "error", text]).encode()
    try:
        return json.dumps(["value", value]).encode()
    except MemoryError:
        return b'["memory", ""]'
    except Exception as error:
        return json.dumps(["answer", f"its answer is not JSON: {type(error).__name__}"]).encode()


def _leave_parent(parent: int, writing: int) -> None:
    """Take nothing along: no descriptor, no terminal, no handler, no variable."""
    nothing = os.open(os.devnull, os.O_RDWR)
    nothing, writing = (fcntl.fcntl(handle, fcntl.F_DUPFD, _ANSWER + 1) for handle in (nothing, writing))
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    os.dup2(writing, _ANSWER)
    os.closerange(_ANSWER + 1, 1 << 20)
    sys.stdin = sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    logging.disable()
    warnings.simplefilter("ignore")
    forget_environment()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # others are not there after a fork, and cannot be started
