"""How fast a version is served here: asked of a process of its own, which is the engine as model units run it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.compression.quality.stopping import Tell, go_on

CONCURRENCY = 8
WINDOW_S = 20.0
"""So long tokens are counted, once the engine is warm."""
TIMEOUT_S = 1800.0
_LOOK_EVERY_S = 0.5
_SERVING = "app.compression.quality.serving"
"""By name: whoever measures does not import the engine, which takes ten seconds and gigabytes."""


class Asked(BaseModel):
    """What the process is told."""

    model_config = ConfigDict(frozen=True)

    folder: str
    """With the weights."""
    scratch: str
    """An empty folder for its log, its sockets and its answer."""
    threads: int
    concurrency: int = CONCURRENCY
    window_s: float = WINDOW_S


class Served(BaseModel):
    """What it answers; `problem` says why the engine did not serve, and then there are no figures."""

    model_config = ConfigDict(frozen=True)

    load_s: float | None = None
    """Until the engine was ready, its code imported."""
    tokens_per_s: float | None = None
    """Of all callers together, without those of the prompts."""
    problem: str = ""


def served(
    folder: Path,
    tell: Tell,
    what: str = "measuring the serving speed",
    *,
    threads: int | None = None,
    concurrency: int = CONCURRENCY,
    window_s: float = WINDOW_S,
) -> Served:
    """Start the engine on these weights, keep `concurrency` callers busy, and end it. Raises Stopped.

    `threads` None: as many as the machine has cores, as units have by default.
    """
    go_on(tell, what)
    with tempfile.TemporaryDirectory(prefix="modelunit-") as scratch:
        asked = Asked(
            folder=str(folder.resolve()),
            scratch=scratch,
            threads=threads or os.cpu_count() or 1,
            concurrency=concurrency,
            window_s=window_s,
        )
        with (Path(scratch) / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", _SERVING, asked.model_dump_json()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            return _answer(process, Path(scratch) / "answer.json", tell, what)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the engine's core too, whatever it hangs in
            process.wait()


def _answer(process: subprocess.Popen[bytes], answer: Path, tell: Tell, what: str) -> Served:
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and not answer.exists():
        go_on(tell, what)
        if time.monotonic() > deadline:
            return Served(problem=f"the engine did not answer within {TIMEOUT_S:.0f} s")
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_S)
    if not answer.exists():
        return Served(problem=f"the engine process ended without a word (code {process.returncode})")
    return Served.model_validate(json.loads(answer.read_bytes()))
