"""Each limit, by a function that tries to pass it. They run in the child, and know nothing but their arguments."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.weights import confinement
from app.weights.sandbox import ANSWER_LIMIT_BYTES, SandboxFailed, run

MIB = 1 << 20
SECRET = "AWS_SECRET_ACCESS_KEY"
HAS_LANDLOCK = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) > 0
needs_landlock = pytest.mark.skipif(not HAS_LANDLOCK, reason="this kernel has no Landlock")


def attempt(function: Any, *arguments: object, **limits: Any) -> Any:
    return run(function, *arguments, **{"memory_bytes": 64 * MIB, "time_s": 20.0, **limits})


def failure(function: Any, *arguments: object, **limits: Any) -> SandboxFailed:
    with pytest.raises(SandboxFailed) as caught:
        attempt(function, *arguments, **limits)
    return caught.value


def refused(action: Any) -> int:
    """Errno of what an action is refused with; 0 when it is not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


# ---- what works


def test_the_answer_comes_back_as_json_brings_it():
    assert attempt(lambda *given: {"given": given, "pid": os.getpid()}, 1, "two", None)["given"] == [1, "two", None]
    assert attempt(os.getpid) != os.getpid()


def test_it_reads_a_path_that_it_is_given(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("content")
    assert attempt(Path.read_text, file) == "content"
    assert attempt(os.listdir, tmp_path) == ["file"]


def test_it_writes_below_the_folder_that_it_may_write(tmp_path: Path):
    attempt(lambda folder: (folder / "file").write_text("content"), tmp_path, writable=tmp_path)
    assert (tmp_path / "file").read_text() == "content"


def test_it_imports_what_nobody_has_imported_yet():
    code = "import this"
    assert attempt(lambda: exec(code) or True) is True


def test_many_can_run_at_once_from_threads():
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: attempt(lambda: number * number), range(24)))
    assert answers == [number * number for number in range(24)]


def test_torch_computes_in_it():
    import torch

    torch.rand(256, 256) @ torch.rand(256, 256)  # the parent's threads exist by now, and the child has none of them
    assert attempt(lambda: float((torch.ones(512, 512) @ torch.ones(512, 512)).sum())) == 512.0**3


# ---- time, memory, crashes, answers


def test_a_loop_without_end_is_ended():
    def loop() -> None:
        while True:
            pass

    started = time.monotonic()
    failed = failure(loop, time_s=0.3)
    assert (failed.kind, str(failed)) == ("time", "it took longer than 0.3 s")
    assert time.monotonic() - started < 10


def test_sleeping_and_ignoring_signals_does_not_help():
    def wait() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    assert failure(wait, time_s=0.2).kind == "time"


def test_a_part_may_have_a_shorter_time():
    def wait() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        time.sleep(60)

    failed = failure(wait)
    assert (failed.kind, str(failed)) == ("time", "a step of it took too long")


# Far more than the tests' own process may have freed, and so has to give, without asking the system.
@pytest.mark.parametrize("size", [8 << 30, 1 << 40])
def test_too_much_memory(size: int):
    failed = failure(lambda: len(bytearray(size)))
    assert (failed.kind, str(failed)) == ("memory", "it needs more than 64 MiB of memory")


def test_too_much_memory_in_small_pieces():
    assert failure(lambda: [bytes(1000) for _ in range(10_000_000)] and None).kind == "memory"


def test_too_much_memory_by_torch():
    import torch

    assert failure(lambda: torch.ones(1 << 30).sum().item()).kind == "memory"


def test_enough_memory_is_enough():
    assert attempt(lambda: len(bytearray(32 * MIB))) == 32 * MIB


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash(number: signal.Signals):
    failed = failure(lambda: os.kill(os.getpid(), number))
    assert (failed.kind, str(failed)) == ("crash", f"it crashed ({signal.strsignal(number)})")


def test_abort_in_native_code_is_a_crash():
    assert "Aborted" in str(failure(lambda: ctypes.CDLL(None).abort()))


def test_leaving_without_an_answer():
    assert str(failure(lambda: os._exit(0))) == "it ended without an answer"


def test_an_answer_that_is_too_large():
    failed = failure(lambda: "x" * ANSWER_LIMIT_BYTES)
    assert (failed.kind, str(failed)) == ("answer", "its answer is larger than 4 MiB")


def test_an_answer_that_is_not_json():
    assert str(failure(lambda: {1, 2})) == "its answer is not JSON: TypeError"


@pytest.mark.parametrize("answer", [b"", b"[", b"{}", b"[" * 10_000, b'["value", 1, 2]', b"\xff"])
def test_a_forged_answer(answer: bytes):
    def forge() -> None:
        os.write(3, answer)
        os._exit(0)

    assert failure(forge).kind in ("crash", "error")


def test_an_exception_is_told_on_one_line_and_without_paths():
    def fail() -> None:
        raise KeyError("in /models/mine/config.json,\n line 3")

    failed = failure(fail)
    assert failed.kind == "error"
    assert str(failed) == "KeyError: 'in config.json,\\n line 3'"


def test_leaving_python_is_an_exception():
    assert str(failure(lambda: sys.exit("bye"))) == "SystemExit: bye"


def test_nothing_is_left_behind():
    before = {child.pid for child in psutil.Process().children()}, len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        failure(lambda: time.sleep(60), time_s=0.05)
        attempt(lambda: 1)
    assert before == ({child.pid for child in psutil.Process().children()}, len(os.listdir("/proc/self/fd")))


def test_it_dies_with_its_parent():
    program = """
import os, sys, time
from app.weights.sandbox import run
def wait(write):
    os.write(3, b"x")  # the pipe; the parent reads it
    time.sleep(60)
import threading
threading.Thread(target=lambda: run(wait, 1, memory_bytes=1 << 26, time_s=60)).start()
import psutil
while not psutil.Process().children():
    time.sleep(0.01)
print(psutil.Process().children()[0].pid, flush=True)
sys.stdin.read()
os._exit(0)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    parent.communicate(timeout=20)
    assert psutil.wait_procs([child], timeout=20)[1] == []


# ---- the world outside


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK])
def test_no_socket(family: int):
    def connect() -> None:
        socket.socket(family, socket.SOCK_STREAM if family != socket.AF_NETLINK else socket.SOCK_RAW)

    assert str(failure(connect)) == "PermissionError: [Errno 1] Operation not permitted"


def test_no_other_program(tmp_path: Path):
    def start(ran: Path) -> list[int]:
        return [
            refused(lambda: os.execv("/bin/sh", ["sh", "-c", f"touch {ran}"])),
            refused(lambda: subprocess.run(["/bin/true"], check=True)),
            refused(lambda: os.posix_spawn("/bin/true", ["true"], {})),
            os.system(f"touch {ran}"),
        ]

    answer = attempt(start, tmp_path / "ran", writable=tmp_path)
    assert answer[:3] == [1, 1, 1]
    assert answer[3] != 0
    assert list(tmp_path.iterdir()) == []


def test_no_other_process_or_thread():
    def bomb() -> list[int]:
        while True:
            os.fork()

    def thread() -> None:
        threading.Thread(target=time.sleep, args=(1,)).start()

    assert "PermissionError" in str(failure(bomb))
    assert str(failure(thread)) == "RuntimeError: can't start new thread"


def test_no_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SECRET, "do-not-tell")
    assert attempt(lambda: [dict(os.environ), os.getenv(SECRET), ctypes.CDLL(None).getenv(SECRET.encode())]) == [
        {},
        None,
        0,
    ]
    assert os.environ[SECRET] == "do-not-tell"


def test_no_environment_in_proc_either():
    program = """
import os
from app.weights import confinement
from app.weights.sandbox import run
confinement._landlock = lambda readable, writable: None
def look(parent):
    for pid in ("self", parent):
        try:
            seen = open(f"/proc/{pid}/environ", "rb").read()
        except OSError:
            continue
        if b"do-not-tell" in seen:
            return pid
mine = open("/proc/self/environ", "rb").read()
assert b"do-not-tell" in mine
print(run(look, "self", memory_bytes=1 << 26, time_s=20))
assert open("/proc/self/environ", "rb").read() == mine
"""
    environment = {**os.environ, SECRET: "do-not-tell"}
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == "None\n"


@needs_landlock
def test_no_look_at_other_processes():
    def look(pid: int) -> list[int]:
        names = ("environ", "mem", "maps", "fd", "cmdline")
        return [refused(partial(os.open, f"/proc/{pid}/{name}", os.O_RDONLY)) for name in names]

    assert 0 not in attempt(look, os.getpid())


def test_no_open_file_but_its_pipe(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def look() -> list[int]:
        return [handle for handle in range(1000) if refused(partial(os.fstat, handle)) == 0]

    with secret.open() as file, socket.socket() as connection:
        assert file.fileno() > 2
        assert connection.fileno() > 2
        assert attempt(look) == [0, 1, 2, 3]


@needs_landlock
def test_no_file_beyond_what_it_needs(tmp_path: Path):
    other, given = tmp_path / "other", tmp_path / "given"
    for folder in (other, given):
        folder.mkdir()
        (folder / "file").write_text("content")

    def look(folder: Path, beside: str) -> list[int]:
        paths = (
            "/etc/passwd",
            "/proc/self/environ",
            f"{beside}/file",
            str(Path.home()),
            "/tmp",
            f"{folder}/../other/file",
        )
        return [refused(lambda path=path: os.close(os.open(path, os.O_RDONLY))) for path in paths]

    assert attempt(look, given, str(other)) == [13] * 6


@pytest.mark.parametrize("landlock", [pytest.param(True, marks=needs_landlock), False])
def test_nothing_is_written_where_nothing_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landlock: bool):
    if not landlock:
        monkeypatch.setattr(confinement, "_landlock", lambda readable, writable: None)
    file = tmp_path / "file"
    file.write_text("content")
    file.chmod(0o644)

    def spoil(file: Path) -> dict[str, int]:
        attempts = {
            "write": lambda: file.write_text("spoilt"),
            "append": lambda: file.open("a"),
            "create": (file.parent / "new").touch,
            "truncate": lambda: os.truncate(file, 0),
            "unlink": file.unlink,
            "rename": lambda: file.rename(file.parent / "moved"),
            "mkdir": (file.parent / "folder").mkdir,
            "symlink": lambda: (file.parent / "link").symlink_to(file),
            "hard link": lambda: os.link(file, file.parent / "hard"),
            "pipe": lambda: os.mkfifo(file.parent / "pipe"),
            "chmod": lambda: file.chmod(0o777),
            "chown": lambda: os.chown(file, 1, 1),
            "times": lambda: os.utime(file, (1, 1)),
            "attribute": lambda: os.setxattr(file, "user.a", b"b"),
            "shared memory": lambda: Path("/dev/shm/modelunit-test").touch(),
            "memory file": lambda: os.memfd_create("a"),
        }
        return {name: refused(action) for name, action in attempts.items()}

    before = file.stat()
    outcome = attempt(spoil, file)
    assert [name for name, number in outcome.items() if number not in (1, 13)] == []
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat() == before


@needs_landlock
def test_nothing_is_written_beside_the_folder_that_may_be(tmp_path: Path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.write_text("content")

    def spoil(folder: Path, other: str) -> list[int]:
        (folder / "mine").write_text("mine")
        return [
            refused(lambda: Path(other).write_text("spoilt")),
            refused(lambda: Path(other).unlink()),
            refused(lambda: (folder / "mine").rename(other)),
            refused(lambda: (folder / "link").symlink_to(other)),
            refused(lambda: os.link(other, folder / "hard")),
            refused(lambda: os.mkfifo(folder / "pipe")),
            refused(lambda: (folder / "mine").chmod(0o777)),
        ]

    assert 0 not in attempt(spoil, inside, str(outside), writable=inside)
    assert outside.read_text() == "content"
    assert [path.name for path in inside.iterdir()] == ["mine"]


def test_no_file_grows_beyond_its_limit(tmp_path: Path):
    def grow(folder: Path) -> int:
        with (folder / "file").open("wb", buffering=0) as file:
            return refused(lambda: [file.write(bytes(MIB)) for _ in range(10)])

    assert attempt(grow, tmp_path, writable=tmp_path, file_bytes=3 * MIB) == 27
    assert (tmp_path / "file").stat().st_size == 3 * MIB


def test_no_hold_of_its_parent():
    def attack(parent: int) -> list[int]:
        libc = ctypes.CDLL(None, use_errno=True)

        def call(name: str, *arguments: int) -> int:
            return ctypes.get_errno() if getattr(libc, name)(*arguments) == -1 else 0

        def slow_down() -> None:
            resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1))

        return [
            refused(lambda: os.kill(parent, signal.SIGKILL)),
            refused(lambda: os.kill(-1, signal.SIGKILL)),
            refused(lambda: os.killpg(os.getpgid(parent), signal.SIGKILL)),
            refused(lambda: os.setpriority(os.PRIO_PROCESS, parent, 19)),
            refused(slow_down),
            call("ptrace", 16, parent, 0, 0),
            call("process_vm_readv", parent, 0, 0, 0, 0, 0),
            call("unshare", 0x10000000),
            call("mount", 0, 0, 0, 0, 0),
            call("syscall", 425, 1, 0),  # io_uring_setup
            call("syscall", 321 if os.uname().machine == "x86_64" else 280, 0, 0, 0),  # bpf
        ]

    assert attempt(attack, os.getpid()) == [1] * 11


def test_limits_cannot_be_raised():
    def raise_limits() -> list[str]:
        names = ("RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_NOFILE")
        raised = []
        for name in names:
            soft, hard = resource.getrlimit(getattr(resource, name))
            try:
                resource.setrlimit(getattr(resource, name), (soft + 1, hard + 1))
                raised.append(name)
            except (OSError, ValueError):
                pass
        return raised

    assert attempt(raise_limits) == []


def test_a_system_that_cannot_confine_is_not_the_contents_fault(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **limits: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("app.weights.sandbox.confine", refuse)
    failed = failure(lambda: 1)
    assert (failed.kind, str(failed)) == ("setup", "OSError: [Errno 22] Invalid argument")
