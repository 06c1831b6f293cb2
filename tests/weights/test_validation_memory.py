"""What one validation takes beyond the warm validator: its process and its sandbox together, at Gemma's size."""

import threading
import time
from pathlib import Path

import psutil
import pytest

from app.catalog.catalog import Catalog
from app.core.job_specs import MachineMemory
from app.core.model_specs import Source
from app.weights.validator_client import SERVER, ValidationTask, validate_warm
from tests.fork_servers import servers
from tests.weights.damages import config
from tests.weights.large_tokenizers import TOKENS, write_large_tokenizer
from tests.weights.sound_folders import write_sound

LIMIT_BYTES = 300 << 20


class Watch:
    """The most that the children of a process had to themselves at one moment."""

    def __init__(self, parent: psutil.Process) -> None:
        self.peak_bytes = 0
        self._parent = parent
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            children = self._parent.children(recursive=True)
            self.peak_bytes = max(self.peak_bytes, sum(map(private_bytes, children)))
            time.sleep(0.005)


def private_bytes(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


@pytest.mark.timeout(300)  # with much else on the machine
def test_a_tokenizer_of_gemma_s_size_stays_below_300_mb(warm_run_dir: Path, tmp_path: Path):
    folder = tmp_path / "gemma"
    write_sound("gemma3-text", folder)
    write_large_tokenizer(folder)
    config(vocab_size=TOKENS)(folder)
    entry = Catalog.load().find("Gemma-3-1B")
    assert entry
    machines = (MachineMemory(name="big", memory_bytes=80 << 30),)
    source = Source(uri=f"file://{folder}")
    task = ValidationTask(source=source, entry=entry, precision="BF16", machines=machines)
    validate_warm(warm_run_dir, task, 120)
    (server,) = servers(SERVER.module, warm_run_dir)
    with Watch(server) as watch:
        report = validate_warm(warm_run_dir, task, 120)
    assert "unknown_error" not in {found.code for found in report.findings}
    assert report.facts.chat_template  # so it was loaded
    print(f"{watch.peak_bytes >> 20} MiB")
    assert 50 << 20 < watch.peak_bytes < LIMIT_BYTES
