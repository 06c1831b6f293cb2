"""What several tests share."""

import fcntl
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.once import (  # noqa: F401 (fixtures)
    catalogue_read_once,
    clients_read_their_files_once,
    statements_compiled_once,
)
from tests.postgresql import migrate, postgresql  # noqa: F401 (a fixture)
from tests.s3 import bucket, proxy, s3_url  # noqa: F401 (fixtures)
from tests.unit.engines import end_host

ROOT = Path(__file__).parents[1]

# A shell's background job ignores Ctrl-C, and so would every process that a test starts there and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What all the imports have made stays: Python need not look through it again during every test.

    And torch computes in one thread, wherever it is imported by now: the other core is the other worker's, and threads
    that wait for each other's turn take twenty times as long.
    """
    gc.collect()
    gc.freeze()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database of the newest schema, to be copied: migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "registry.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def vllm_run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of one engine host for all tests that start vLLM, which takes long to import."""
    run_dir = tmp_path_factory.mktemp("home") / "run"
    run_dir.mkdir()
    yield run_dir
    end_host(run_dir)


@pytest.fixture(scope="session")
def demo_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, converted once the way a person does it, by the first of the workers that needs it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # which all workers have in common, and nobody else
    folder = base / "models" / "SmolLM2-135M-Instruct"
    with (base / "demo-model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "app.weights.demo_model", str(folder)], cwd=ROOT, check=True)
    return folder
