"""Asking this node's validator, which is started when there is none. Light: the client imports neither torch nor boto3.

The validator itself is app/weights/validator.py.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.catalog.entries import CatalogEntry
from app.core.findings import Report, finding
from app.core.job_specs import MachineMemory
from app.core.model_specs import Source
from app.core.specs import Precision
from app.fork_server import ForkServer

SERVER = ForkServer("validator", "app.weights.validator")
START_TIMEOUT_S = 120.0

_REPORT_LIMIT_BYTES = 16 << 20
_GRACE_S = 2.0  # the child ends itself in time; the client waits a little longer for what it has said
_ENVIRONMENT = {
    # Libraries must neither start threads, which a fork would lose, nor ask a model hub.
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads of a child that reads from S3 would each reserve memory.
    "MALLOC_ARENA_MAX": "2",
    "CUDA_VISIBLE_DEVICES": "",
}


class ValidationTask(BaseModel):
    """What is to be checked, and against what."""

    model_config = ConfigDict(frozen=True)

    source: Source
    entry: CatalogEntry
    precision: Precision
    machines: tuple[MachineMemory, ...] = ()
    made_here: bool = False
    """By a compression, which makes precisions that weights from elsewhere may not have."""


class ValidationRequest(BaseModel):
    """What a client writes, as one line of JSON."""

    task: ValidationTask
    time_s: float = Field(gt=0)


def validate_warm(run_dir: Path, task: ValidationTask, timeout_s: float) -> Report:
    """The report on a task by this node's validator, which is started if there is none.

    `timeout_s` is for the check alone; a start takes some ten seconds more. A check that crashes, takes too long or
    needs too much memory is a report with the finding `unknown_error`; the validator's log has the reason.
    Raises TimeoutError or another OSError when no validator can be started.
    """
    try:
        return _ask(run_dir, task, timeout_s)
    except ConnectionError:  # it may have been about to end, and then the next is another
        return _ask(run_dir, task, timeout_s)


def start(run_dir: Path, environment: Mapping[str, str]) -> None:
    """Start a validator, detached from this process; one that finds another running ends at once."""
    SERVER.start(run_dir, {**environment, **_ENVIRONMENT})


def unknown_error(found: str) -> Report:
    """The report on a check that came to no verdict."""
    advice = "Try again. If it happens again, the validator's log on the node says where."
    return Report(findings=(finding("unknown_error", advice, found=found),))


def _ask(run_dir: Path, task: ValidationTask, timeout_s: float) -> Report:
    request = ValidationRequest(task=task, time_s=timeout_s).model_dump_json().encode() + b"\n"
    with SERVER.connect(run_dir, START_TIMEOUT_S, lambda: start(run_dir, os.environ)) as connection:
        connection.settimeout(START_TIMEOUT_S)
        connection.sendall(request)
        if not connection.recv(1):
            raise ConnectionError("the validator ended or refused the task; see its log")
        return _receive(connection, timeout_s)


def _receive(connection: socket.socket, timeout_s: float) -> Report:
    end = time.monotonic() + timeout_s
    answer = b""
    try:
        while (left_s := end + _GRACE_S - time.monotonic()) > 0 and len(answer) <= _REPORT_LIMIT_BYTES:
            connection.settimeout(left_s)
            part = connection.recv(1 << 16)
            if not part:
                return Report.model_validate_json(answer)
            answer += part
    except (OSError, ValidationError):
        pass
    late = time.monotonic() > end - _GRACE_S / 10
    return unknown_error(f"the check took longer than {timeout_s:g} s" if late else "the check ended unexpectedly")
