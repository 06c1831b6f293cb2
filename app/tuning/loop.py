"""What each worker does: iteration after iteration, from the newest checkpoint on."""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed
from safetensors.torch import load_file, save_file

from app.core.errors import PlatformError
from app.core.tuning_spec import TrainingPlan
from app.tuning.batches import Ids, Order, Samples, Trained, dealt, packed, parted
from app.tuning.checkpoints import CheckpointStore
from app.tuning.memory import Room, room_for
from app.tuning.model import TrainedModel
from app.tuning.optimizer import Masters, learning_rate
from app.tuning.packing import Packed, trained_tokens
from app.tuning.reports import Report

STATE, REPORTS = "state.safetensors", "reports.jsonl"
"""The files of a checkpoint: weights and optimizer; what every iteration so far has told."""

log = logging.getLogger(__name__)

Tell = Callable[[Report], bool]
"""Hears of each iteration, and says whether to stop at a checkpoint after it."""


class Diverged(PlatformError):
    status, type, code = 400, "invalid_request_error", "training_diverged"


@dataclass(frozen=True)
class Worker:
    """One of `count` processes that train the same model, each on its share of every iteration's rows."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, tensor: torch.Tensor) -> None:
        """Put the sum over all workers in its place."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)


@dataclass(frozen=True)
class Work:
    """What is trained on what, and where it is kept."""

    plan: TrainingPlan
    base: Path
    samples: Samples
    """The training's and the validation's."""
    checkpoints: CheckpointStore


def train_here(work: Work, worker: Worker, tell: Tell) -> int:
    """Train until the plan is done or `tell` says to stop; how many iterations are done then, all of them published.

    Only the worker of rank 0 tells and publishes. Raises Diverged when the loss is no number any more.
    """
    plan = work.plan
    samples, validation = parted(work.samples, plan.validation_rows, plan.seed)
    model = TrainedModel(work.base, plan, worker.device)
    masters = Masters(model.trained, plan.weight_decay)
    room = room_for(model.model, plan, worker.device)
    if room.spare_memory:
        model.spare_memory()
    with _Published(work, masters, worker) as published:
        done = published.resume()
        if model.adapters:
            model.adapters.changed()
        stopping = False
        order = Order(len(samples), plan.rows_per_iteration, plan.seed) if done < plan.iterations else None
        while done < plan.iterations:
            assert order
            started = time.monotonic()
            # From the iteration alone, so that dropout is the same after a crash.
            torch.manual_seed((plan.seed << 32) + (done << 12) + worker.rank)
            rows = order.rows(done)
            loss, tokens, trained, stop = _gradients(model, masters, samples, rows, worker, room, stopping)
            if not math.isfinite(loss):
                raise Diverged(
                    f"The loss is {loss} at iteration {done + 1}. Choose a lower learning_rate.", "learning_rate"
                )
            rate = learning_rate(plan, done)
            norm = masters.step(rate)
            if model.adapters:
                model.adapters.changed()
            done += 1
            elapsed_s = time.monotonic() - started
            last = stop or done == plan.iterations
            due = last or done % plan.checkpoint_every == 0
            judged = _validation_loss(model, validation, worker, room) if due else None
            report = Report(
                iteration=done, iterations=plan.iterations, loss=loss, learning_rate=rate, gradient_norm=norm,
                elapsed_s=elapsed_s, tokens=tokens, trained_tokens=trained, rows=len(rows), cards=worker.count,
                at_s=time.time(), validation_loss=judged,
            )  # fmt: skip
            published.add(report)
            if due:
                published.publish(wait=last)
            stopping = worker.rank == 0 and tell(report)
            if stop:
                break
        return done


def _gradients(
    model: TrainedModel,
    masters: Masters,
    samples: Samples,
    rows: list[int],
    worker: Worker,
    room: Room,
    stop: bool,
) -> tuple[float, int, int, bool]:
    """Collect the gradients of the mean loss of these rows: (loss, tokens, trained tokens, whether anybody stops)."""
    taken = [samples[row] for row in rows]
    lengths = [len(ids) for ids, _ in taken]
    trained = sum(trained_tokens(of_one) for _, of_one in taken)
    mine = dealt(lengths, worker.count)[worker.rank]
    total = torch.zeros((), device=worker.device)
    for batch in _batches(model, [taken[place] for place in mine], room):
        loss = model.summed_loss(batch) / max(1, trained)
        loss.backward()
        total += loss.detach()
    ends = torch.stack([total, total.new_tensor(float(stop))])
    if worker.count > 1:
        # Few large sums: each costs a round through the network.
        for gradients in _buckets(masters.gradients):
            flat = torch.cat([gradient.view(-1) for gradient in gradients])
            worker.sum(flat)
            for gradient, summed in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
                gradient.copy_(summed.view_as(gradient))
        worker.sum(ends)
    return float(ends[0]), sum(lengths), trained, bool(ends[1] > 0)


def _batches(model: TrainedModel, taken: list[tuple[Ids, Trained]], room: Room) -> Iterator[Packed]:
    """What goes through at once; samples of which nothing is learnt are left out."""
    learnt = [(ids, trained) for ids, trained in taken if trained_tokens(trained)]
    groups = packed([len(ids) for ids, _ in learnt], room.tokens if model.packs else 0)
    return (Packed.of([learnt[place] for place in group], model.device) for group in groups)


_BUCKET_VALUES = 64 << 20


def _buckets(gradients: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(one.numel() for one in bucket) >= _BUCKET_VALUES:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _validation_loss(model: TrainedModel, samples: Samples, worker: Worker, room: Room) -> float | None:
    """The mean over all trained tokens of all samples; None without any."""
    total = torch.zeros(2, device=worker.device, dtype=torch.float64)
    model.model.eval()
    mine = range(worker.rank, len(samples), worker.count)
    for start in range(0, len(mine), 64):
        taken = [samples[number] for number in mine[start : start + 64]]
        for batch in _batches(model, taken, room):
            with torch.no_grad():
                loss = model.summed_loss(batch).double()
            total += torch.stack([loss, total.new_tensor(len(batch.targets))])
    model.model.train()
    worker.sum(total)
    return float(total[0] / total[1]) if total[1] else None


class _Published:
    """The checkpoints of this run: the newest to go on from, the next ones written while training goes on."""

    def __init__(self, work: Work, masters: Masters, worker: Worker) -> None:
        self._work, self._masters, self._worker = work, masters, worker
        self._reports: list[Report] = []
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[object] | None = None

    def __enter__(self) -> "_Published":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()

    def resume(self) -> int:
        """Go on from the newest checkpoint that is whole: how many iterations it has done, the same for all workers."""
        plan, digest, store = self._work.plan, self._work.samples.digest, self._work.checkpoints
        with tempfile.TemporaryDirectory(prefix="modelunit-resume-") as name:
            folder = Path(name)
            chosen = torch.zeros(1, dtype=torch.int64, device=self._worker.device)
            if self._worker.rank == 0 and (found := store.fetch_newest(plan, digest, folder)):
                chosen += found.iteration
            self._worker.sum(chosen)  # the others have added 0
            iteration = int(chosen)
            if not iteration:
                return 0
            if self._worker.rank != 0:
                store.fetch(next(one for one in store.newest(plan, digest) if one.iteration == iteration), folder)
            self._masters.load(load_file(folder / STATE))
            self._reports = read_reports(folder)
        return iteration

    def add(self, report: Report) -> None:
        self._reports.append(report)

    def publish(self, wait: bool) -> None:
        """Publish what is now, and wait for it or go on meanwhile; but never with two under way.

        Raises StoreError when it is waited for. Else the next one is the second chance.
        """
        if self._worker.rank != 0:
            return
        if self._writing is not None and (error := self._writing.exception()):
            log.warning("a checkpoint was not published: %s", type(error).__name__)
        self._writing = self._writer.submit(self._write, self._masters.state(), tuple(self._reports))
        if wait:
            self._writing.result()

    def _write(self, state: dict[str, torch.Tensor], reports: tuple[Report, ...]) -> None:
        with tempfile.TemporaryDirectory(prefix="modelunit-checkpoint-") as name:
            files = {STATE: Path(name, STATE), REPORTS: Path(name, REPORTS)}
            save_file(state, files[STATE])
            files[REPORTS].write_text("".join(f"{report.model_dump_json()}\n" for report in reports))
            iteration = reports[-1].iteration
            self._work.checkpoints.write(self._work.plan, self._work.samples.digest, iteration, files)


def read_reports(folder: Path) -> list[Report]:
    """Of a checkpoint that lies in the folder: one for each iteration."""
    return [Report.model_validate_json(line) for line in (folder / REPORTS).read_text().splitlines()]
