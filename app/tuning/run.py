"""What a training is given and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.core.job_specs import TrainingProgress
from app.core.specs import MachineType
from app.core.tuning_spec import TrainingPlan
from app.store.object_store import ObjectStore
from app.tuning.data.sample_file import SampleFile
from app.tuning.inputs import Input
from app.tuning.reporter import Reporter


@dataclass(frozen=True)
class Run:
    """One attempt. It goes on from the newest complete checkpoint below `checkpoints`, where there is one."""

    plan: TrainingPlan
    base: Path
    """A folder with the weights, tokenizer and configuration of the model that it begins with; only read."""
    samples: SampleFile
    """The last `plan.validation_rows` of a permutation by `plan.seed` are for validation."""
    output: Path
    """Where the new model's weights and config.json go; it exists, and is empty or another attempt's."""
    adapter: Path
    """Where the LoRA matrices go, as peft keeps them; likewise."""
    tensorboard: Path
    """Where TensorBoard's files go; likewise."""
    store: ObjectStore
    checkpoints: str
    """Prefix in the store, ends with '/'."""
    machine: MachineType
    """One worker for each of its cards, one where it has none ..."""
    instances: int
    """... on so many of it."""
    finish: bool
    """Train no further: the newest checkpoint is the result."""


@dataclass(frozen=True)
class Trained:
    """How it ended: with the last iteration, or (`stopped`) at the checkpoint that `progress` names."""

    progress: TrainingProgress
    stopped: bool = False
    sample: str = ""
    """What the new model says to the first question of the dataset."""


Inputs = Callable[[], tuple[Input, ...]]
"""Puts into the store what other machines need, and says what they are to bring from it."""
Train = Callable[[Run, Reporter, Inputs], Trained]
