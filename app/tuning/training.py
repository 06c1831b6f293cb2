"""One attempt at a training: go on from the newest checkpoint, and make a model of the last one."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from app.core.job_specs import TrainingProgress
from app.store.file_store import FileStore
from app.tuning.checkpoints import CheckpointStore
from app.tuning.cluster import connect, is_one_node
from app.tuning.crew import Crew, train_together
from app.tuning.loop import Work, read_reports
from app.tuning.reporter import Reporter
from app.tuning.reports import RECENT, Report, remaining_s
from app.tuning.result import answer, write_model, write_tensorboard
from app.tuning.run import Inputs, Run, Trained

log = logging.getLogger(__name__)


def train(run: Run, reporter: Reporter, inputs: Inputs) -> Trained:
    """Train as the plan says, unless `run.finish`, and write the result; stopped at a checkpoint, only say so.

    `inputs` is asked where a worker may be on another machine than this process. Raises Diverged, Unavailable,
    StoreError, and Ray's TrainingFailedError when workers die again and again.
    """
    plan, checkpoints = run.plan, CheckpointStore(run.store, run.checkpoints)
    work = Work(plan, run.base, run.samples, checkpoints)
    if plan.iterations and not run.finish:
        crew = Crew.on(run.machine, run.instances)
        connect(crew)
        # A store of files is at the same place on every node, but this node's disk is not; and a cluster may grow.
        at_hand = isinstance(run.store, FileStore) and is_one_node()
        train_together(work, crew, _Log(reporter), () if at_hand else inputs())
    with tempfile.TemporaryDirectory(prefix="modelunit-result-") as name:
        folder = Path(name)
        found = checkpoints.fetch_newest(plan, run.samples.digest, folder)
        reports = read_reports(folder) if found else []
        progress = reporter.last or TrainingProgress(iteration=len(reports), iterations=plan.iterations)
        if len(reports) < plan.iterations and not run.finish:
            return Trained(progress, stopped=True)
        model = write_model(plan, run.base, folder if found else None, run.output, run.adapter)
    write_tensorboard(reports, run.tensorboard)
    return Trained(progress, sample=_sample(model, run))


def _sample(model: Any, run: Run) -> str:
    """What the model says to the first question; empty where it has none or cannot say anything."""
    ids, trained = run.samples[0]
    question = ids[: int(trained.argmax())].tolist()
    try:
        return answer(model, run.base, question) if question else ""
    except Exception as error:  # whatever transformers raises: the weights are trained, and are not lost for this
        log.warning("the new model gave no sample (%s)", type(error).__name__)
        return ""


class _Log:
    """Prints a line for each iteration, and hands it on."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._recent: list[Report] = []

    def __call__(self, report: Report) -> bool:
        self._recent = [*self._recent[-RECENT + 1 :], report]
        print(report.line(remaining_s(self._recent)), flush=True)
        return self._reporter.hear(report)
