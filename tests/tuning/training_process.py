"""Trainings in processes of their own, to be killed: python -m tests.tuning.training_process

Each line that it reads is a folder to train in. It forks a process for it, since the imports take longer than the
training: that prints its number, then each iteration and its loss. When it has ended, ENDED is printed.
"""

import os
import sys
from pathlib import Path

import torch

from app.store.file_store import FileStore
from app.tuning.checkpoints import CheckpointStore
from app.tuning.loop import Work, Worker, train_here
from app.tuning.reports import Report
from tests.tuning.tiny_models import RandomSamples, plan_of

PLAN = plan_of(iterations=120, checkpoint_every=4, dropout=0.1, learning_rate=1e-3)


def tell(report: Report) -> bool:
    print(report.iteration, repr(report.loss), flush=True)
    return False


ENDED = "ended"


def train(folder: Path) -> None:
    print(os.getpid(), flush=True)
    checkpoints = CheckpointStore(FileStore(folder / "store"), "checkpoints/")
    train_here(Work(PLAN, folder / "base", RandomSamples(PLAN.rows), checkpoints), Worker(), tell)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        if pid := os.fork():
            os.waitpid(pid, 0)
            print(ENDED, flush=True)
            continue
        try:
            train(Path(line.rstrip("\n")))
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()
