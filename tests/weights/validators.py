"""A validator whose check does what the task's base model is called: `python -m tests.weights.validators RUN_DIR`."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from app.core.findings import Facts, Report
from app.weights import sandbox, validator
from app.weights.validator_client import ValidationTask

SECRET = "AWS_SECRET_ACCESS_KEY"


def check(task: ValidationTask, work_dir: Path) -> Report:
    if list(work_dir.iterdir()) or work_dir.stat().st_mode & 0o777 != 0o700:
        raise AssertionError("the folder is not empty and private")
    (work_dir / "config.json").write_text("{}")
    return DEEDS[task.entry.base_model](task)


def answer(task: ValidationTask) -> Report:
    machine = task.machines[0].name if task.machines else None
    return Report(facts=Facts(architecture=f"{task.source.uri} {task.precision} {machine}"), read_bytes=os.getpid())


def fail(task: ValidationTask) -> Report:
    raise ValueError("nobody expected this")


def crash(task: ValidationTask) -> Report:
    os.kill(os.getpid(), signal.SIGSEGV)
    return Report()


def wait(task: ValidationTask) -> Report:
    time.sleep(600)
    return Report()


def wait_in_sandbox(task: ValidationTask) -> Report:
    sandbox.run(time.sleep, 600, memory_bytes=1 << 28, time_s=600)
    return Report()


def allocate(task: ValidationTask) -> Report:
    return Report(read_bytes=len(bytearray(validator.MEMORY_BYTES + (64 << 20))))


def allocate_in_sandbox(task: ValidationTask) -> Report:
    size = validator.MEMORY_BYTES + (64 << 20)
    found = sandbox.run(lambda: len(bytearray(size)), memory_bytes=2 * size, time_s=60)
    return Report(read_bytes=found)


def tell_environment(task: ValidationTask) -> Report:
    def secret() -> str | None:
        return os.environ.get(SECRET)

    return Report(facts=Facts(architecture=f"{secret()} {sandbox.run(secret, memory_bytes=1 << 26, time_s=60)}"))


DEEDS: dict[str, Any] = {
    deed.__name__: deed
    for deed in (answer, fail, crash, wait, wait_in_sandbox, allocate, allocate_in_sandbox, tell_environment)
}

if __name__ == "__main__":
    validator.serve(Path(sys.argv[1]), check, warm_up=lambda: None, idle_s=float(sys.argv[2]))
