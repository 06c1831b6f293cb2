"""A training in a process of its own, to be killed: python -m tests.tuning.training_process FOLDER

Prints each iteration and its loss.
"""

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


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    checkpoints = CheckpointStore(FileStore(folder / "store"), "checkpoints/")
    train_here(Work(PLAN, folder / "base", RandomSamples(PLAN.rows), checkpoints), Worker(), tell)


if __name__ == "__main__":
    main()
