"""The world outside the sandbox: each way to it is tried, and refused."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.weights import confinement
from tests.weights.sandboxes import MIB, attempt, failure

SECRET = "AWS_SECRET_ACCESS_KEY"
HAS_LANDLOCK = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) > 0
needs_landlock = pytest.mark.skipif(not HAS_LANDLOCK, reason="this kernel has no Landlock")


def refused(action: Any) -> int:
    """Errno of what an action is refused with; 0 when it is not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


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
confinement.limit_files = lambda readable, writable: None
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
        monkeypatch.setattr(confinement, "limit_files", lambda readable, writable: None)
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
