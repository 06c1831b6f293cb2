"""kill -9 at any moment: what is stored leads on, and the curve of the loss with it."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import record
from tests.tuning.tiny_models import write_tiny
from tests.tuning.training_process import ENDED, PLAN

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]


class Trainings:
    """Trains in folders, each time in a process of its own."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, folder: Path, kill_after: int | None = None) -> dict[int, float]:
        """The losses by iteration of one process, which is killed once it has told of so many."""
        assert self._server.stdin
        assert self._server.stdout
        losses: dict[int, float] = {}
        self._server.stdin.write(f"{folder}\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        while (line := self._server.stdout.readline().rstrip("\n")) != ENDED:
            iteration, loss = line.split()
            losses[int(iteration)] = float(loss)
            if len(losses) == kill_after:
                os.kill(pid, signal.SIGKILL)
        return losses


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    command = [sys.executable, "-m", "tests.tuning.training_process"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        yield Trainings(server)


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path, trainings: Trainings):
    write_tiny(tmp_path / "base")
    whole = trainings.run(tmp_path)
    assert len(whole) == PLAN.iterations
    (tmp_path / "store").rename(tmp_path / "whole")
    before = trainings.run(tmp_path, kill_after=50)
    after = trainings.run(tmp_path)
    assert 1 < min(after) <= max(before) + 1
    assert before | after == pytest.approx(whole, abs=1e-6)


@pytest.mark.soak
def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path, trainings: Trainings):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    write_tiny(tmp_path / "base")
    whole = trainings.run(tmp_path)
    (tmp_path / "store").rename(tmp_path / "whole")
    told: dict[int, float] = {}
    for _ in range(10):
        told |= trainings.run(tmp_path, kill_after=chance.randint(1, 20))
    told |= trainings.run(tmp_path)
    worst = max(abs(told[iteration] - loss) for iteration, loss in whole.items())
    record("training_kills", {"seed": seed, "kills": 10, "iterations": PLAN.iterations, "worst_difference": worst})
    assert told == pytest.approx(whole, abs=1e-6)
