"""The workers that train together, as Ray Train starts them, watches them, and starts them again."""

import contextlib
import logging
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray import cloudpickle
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from app.core.errors import PlatformError
from app.core.specs import MachineType
from app.libc import libc
from app.store.folder_use import in_use
from app.tuning.inputs import Input, bring
from app.tuning.loop import Tell, Work, Worker, train_here
from app.tuning.reports import Report
from app.tuning.wire import Wire

MOST_FAILURES = 8
"""Deaths of workers in one attempt; then it is for whoever started the job to start it again."""
SILENCE_S = 1800
"""How long workers wait for one that does not answer."""
POLL_S = 0.5
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and what each is given."""

    workers: int = 1
    machines: int = 1
    cards: float = 0.0
    """Of each worker."""
    cpus: float = 1.0
    """Of each worker, for placement."""
    threads: int | None = None
    """Of each worker on CPU; None: its share of the machine's cores."""
    resources: dict[str, float] = field(default_factory=dict)
    """Ray custom resources of each worker."""
    labels: dict[str, str] = field(default_factory=dict)
    """Ray node labels."""
    accelerator: str | None = None

    @classmethod
    def on(cls, machine: MachineType, instances: int) -> "Crew":
        """One worker for each card of so many machines, or for each machine without cards."""
        each = machine.accelerator_count or 1
        return cls(
            workers=each * instances,
            machines=instances,
            cards=1.0 if machine.accelerator_count else 0.0,
            cpus=machine.cpus / each,
            threads=machine.engine_threads,
            resources={name: amount / each for name, amount in machine.resources.items()},
            labels=machine.labels,
            accelerator=machine.accelerator,
        )

    @property
    def scaling(self) -> ScalingConfig:
        given = {"CPU": self.cpus, **({"GPU": self.cards} if self.cards else {}), **self.resources}
        return ScalingConfig(
            num_workers=self.workers,
            use_gpu=self.cards > 0,
            resources_per_worker=given,
            placement_strategy="PACK" if self.workers > self.machines else "SPREAD",
            label_selector=self.labels or None,
            accelerator_type=self.accelerator,
        )


def train_together(work: Work, crew: Crew, tell: Tell, inputs: Sequence[Input] = ()) -> None:
    """Train in workers of the cluster until the plan is done or `tell` says to stop; see `train_here`.

    `tell` is called here, in a thread of its own. A worker that dies is started again, and all go on from the newest
    checkpoint. `inputs` is what nodes need that do not have it. Raises Diverged, and Ray's TrainingFailedError after
    too many deaths.
    """
    wire = ray.remote(num_cpus=0)(Wire).remote()
    config = {"work": cloudpickle.dumps(work), "inputs": tuple(inputs), "store": work.checkpoints.store, "wire": wire}
    config["threads"] = crew.threads or max(1, (os.cpu_count() or 1) * crew.machines // crew.workers)
    with tempfile.TemporaryDirectory(prefix="modelunit-train-") as folder, _listening(wire, tell):
        TorchTrainer(
            _work,
            train_loop_config=config,
            torch_config=TorchConfig(timeout_s=SILENCE_S),
            scaling_config=crew.scaling,
            # Nothing of ours goes there: checkpoints lie in the object store.
            run_config=RunConfig(
                name="run", storage_path=folder, failure_config=FailureConfig(max_failures=MOST_FAILURES)
            ),
        ).fit()
    if error := ray.get(wire.error.remote()):
        raise error


def _work(config: dict[str, Any]) -> None:
    """In each worker."""
    context = ray.train.get_context()
    bring(config["store"], config["inputs"])
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(config["threads"])
        keep_freed_memory()
    work: Work = pickle.loads(config["work"])
    wire = config["wire"]

    def tell(report: Report) -> bool:
        stop: bool = ray.get(wire.put.remote(report))
        return stop

    try:
        with contextlib.ExitStack() as used:
            for folder in {wanted.path.parent for wanted in config["inputs"]}:
                used.enter_context(in_use(folder))
            train_here(work, Worker(context.get_world_rank(), context.get_world_size(), device), tell)
    except PlatformError as error:  # it would come again: nothing to start anew for
        ray.get(wire.fail.remote(error))


def keep_freed_memory() -> None:
    """Have malloc keep what is freed: else each large tensor is mapped, zeroed and unmapped by the kernel each time."""
    with contextlib.suppress(AttributeError):  # not glibc
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_M_TOP_PAD, 64 << 20)


@contextlib.contextmanager
def _listening(wire: Any, tell: Tell) -> Iterator[None]:
    """Hand on what comes over the wire until the block ends, and then the rest of it."""
    done = threading.Event()

    def hand_on() -> None:
        for report in ray.get(wire.take.remote()):
            try:  # each by itself: those behind it come only once
                stop = tell(report)
            except Exception:
                log.exception("what iteration %d tells was not heard", report.iteration)
            else:
                if stop:
                    ray.get(wire.stop.remote())

    def listen() -> None:
        while not done.wait(POLL_S):
            try:
                hand_on()
            except Exception:
                log.exception("what training tells was not heard")

    listener = threading.Thread(target=listen, name="training-reports", daemon=True)
    listener.start()
    try:
        yield
    finally:
        done.set()
        listener.join()
        hand_on()
