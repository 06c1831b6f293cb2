"""kill -9 in the middle: nothing can be loaded then, and the next run goes on behind the last whole layer."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.compression.small_models import tensors_of, write_llama
from tests.soak import record

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]


def run(folder: Path, precision: str, kill_at: int | None = None, later_s: float = 0.0) -> list[int]:
    """The layers that one process has told of; it is killed once it has told of this one, or a little later."""
    told: list[int] = []
    command = [sys.executable, "-m", "tests.compression.compression_process", str(folder), precision]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if not line.strip().isdigit():
                continue  # libraries warn of what they like
            told.append(int(line))
            if told[-1] == kill_at:
                time.sleep(later_s)
                process.kill()
                break
        process.stdout.read()
    return told


def same(one: Path, other: Path) -> bool:
    first, second = tensors_of(one), tensors_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.soak  # its small sample: the kill in tests/jobs/test_quantize_job.py
def test_a_killed_compression_goes_on_where_it_was(tmp_path: Path):
    write_llama(tmp_path / "base", num_hidden_layers=6)
    *_, last = run(tmp_path, "AWQ-W4A16", kill_at=3, later_s=0.05)
    assert 3 <= last < 6
    assert not (tmp_path / "new/config.json").exists()
    assert run(tmp_path, "AWQ-W4A16")[0] in (last, last + 1)
    (tmp_path / "new").rename(tmp_path / "killed")
    run(tmp_path, "AWQ-W4A16")
    assert same(tmp_path / "killed", tmp_path / "new")


@pytest.mark.soak
@pytest.mark.parametrize("precision", ["SmoothQuant-W8A8", "W8A8_FP8"])
def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path, precision: str):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    write_llama(tmp_path / "base", num_hidden_layers=16)
    run(tmp_path, precision)
    (tmp_path / "new").rename(tmp_path / "whole")
    at = 0
    for _ in range(10):
        told = run(tmp_path, precision, kill_at=at, later_s=chance.uniform(0, 0.3))
        at = min(15, told[-1] + 1 if told else at)
        assert not (tmp_path / "new/config.json").exists() or same(tmp_path / "whole", tmp_path / "new")
    run(tmp_path, precision)
    record("compression_kills", {"seed": seed, "kills": 10, "precision": precision})
    assert same(tmp_path / "whole", tmp_path / "new")
    shutil.rmtree(tmp_path / "whole")
