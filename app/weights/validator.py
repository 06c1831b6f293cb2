"""The warm validator: one process per node that has torch and transformers imported, and forks a child for each check.

    python -m app.weights.validator RUN_DIR

Started by the first check (app/weights/validator_client.py), it ends when nothing was asked for a while. A child is
bounded in memory and time, so that weights which bring it down cost one report that says so.
"""

import functools
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.findings import Report, finding
from app.fork_server import Job, freeze
from app.settings import Settings
from app.weights.validator_client import SERVER, ValidationRequest, ValidationTask, unknown_error

MEMORY_BYTES = 300 << 20
"""Of a child, beyond what it shares with the validator."""
IDLE_S = 900.0

_FOLDERS = "validate-"
_STACK_BYTES = 1 << 20

log = logging.getLogger(__name__)

Check = Callable[[ValidationTask, Path], Report]
"""Of a task, with an empty folder of its own."""


def serve(
    run_dir: Path, check: Check | None = None, *, warm_up: Callable[[], None] | None = None, idle_s: float = IDLE_S
) -> None:
    """Fork a child for each task, until killed, until the folder is gone, or until nothing was asked for `idle_s`."""
    read = functools.partial(_read, run_dir, check or _check)
    SERVER.serve(run_dir, read, warm_up=warm_up or _import_all, idle_s=idle_s)


def _import_all() -> None:
    """All that checks need, also what libraries put off until its first use."""
    started = time.monotonic()
    import app.store.sources  # noqa: PLC0415 (seconds, and the client needs none of it)
    import app.weights.convert  # noqa: PLC0415
    import app.weights.tokenizer  # noqa: PLC0415
    import app.weights.validation  # noqa: F401, PLC0415

    _build_something()
    freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    log.info("imported transformers in %.1f s, %d threads", time.monotonic() - started, threads)


def _build_something() -> None:
    """A model without memory, and a tokenizer with a template."""
    import sentencepiece  # noqa: F401, PLC0415
    import torch  # noqa: PLC0415
    import transformers.convert_slow_tokenizer  # noqa: F401, PLC0415
    from tokenizers import Tokenizer, models  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig  # noqa: PLC0415

    torch.set_num_threads(1)
    config = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_attention_heads=1, num_hidden_layers=1, vocab_size=8
    )  # fmt: skip
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        Tokenizer(models.WordLevel({"word": 0}, unk_token="word")).save(f"{folder}/tokenizer.json")
        Path(folder, "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer.apply_chat_template([{"role": "user"}], chat_template="{{ messages }}", tokenize=False)


def _read(run_dir: Path, check: Check, line: bytes) -> Job:
    _sweep(run_dir)
    request = ValidationRequest.model_validate_json(line)
    return Job(f"check of {request.task.entry.base_model}", functools.partial(_be_child, run_dir, check, request))


def _sweep(run_dir: Path) -> None:
    """Remove the folders of children that were killed."""
    for folder in run_dir.glob(f"{_FOLDERS}*"):
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(folder.name.removeprefix(_FOLDERS)), 0)
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _be_child(run_dir: Path, check: Check, request: ValidationRequest, connection: socket.socket) -> None:
    connection.sendall(b"\n")  # it has begun; in JSON it means nothing
    signal.setitimer(signal.ITIMER_REAL, request.time_s)  # nobody handles it, so it ends the process
    _limit_memory()
    work_dir = run_dir / f"{_FOLDERS}{os.getpid()}"
    work_dir.mkdir(mode=0o700)
    try:
        report = check(request.task, work_dir)
    except MemoryError:
        log.error("out of memory")
        report = unknown_error(f"the check needs more than {MEMORY_BYTES >> 20} MiB of memory")
    except Exception:
        log.exception("the check failed")
        report = unknown_error("the check failed")
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    connection.sendall(report.model_dump_json().encode())


def _limit_memory() -> None:
    """Bound what this process alone has; not its address space, of which threads reserve far more than they use."""
    threading.stack_size(_STACK_BYTES)
    data_bytes = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # The hard limit stays, so that the sandbox can have one of its own.
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes + MEMORY_BYTES, hard))


def _check(task: ValidationTask, work_dir: Path) -> Report:
    from app.store.object_store import StoreError  # noqa: PLC0415
    from app.store.sources import open_source  # noqa: PLC0415
    from app.weights.validation import validate  # noqa: PLC0415

    settings = Settings.from_environ()
    try:
        folder = open_source(task.source, settings)
    except StoreError as error:
        wrong = finding("source_unreadable", "Check the address and who may read it.", found=error)
        return Report(findings=(wrong,))
    return validate(folder, task.entry, task.precision, work_dir, task.machines, made_here=task.made_here)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
