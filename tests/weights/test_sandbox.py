"""Each limit, by a function that tries to pass it; what is beyond the limits is in test_confinement."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.weights.sandbox import ANSWER_LIMIT_BYTES
from tests.weights.sandboxes import MIB, attempt, failure

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


def test_a_system_that_cannot_confine_is_not_the_contents_fault(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **limits: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("app.weights.sandbox.confine", refuse)
    failed = failure(lambda: 1)
    assert (failed.kind, str(failed)) == ("setup", "OSError: [Errno 22] Invalid argument")
