"""What the control plane and a job process tell each other, as JSON files in the object store."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.core.compression_spec import QuantizeSpec
from app.core.findings import Facts, Finding
from app.core.model_specs import Source
from app.core.quality import QualityCard
from app.core.recipe import Recipe
from app.core.specs import MachineType, Precision
from app.core.tuning_spec import Quantized, TuningSpec


class MachineMemory(BaseModel):
    """How much of weights and KV cache one unit of a machine type holds."""

    model_config = ConfigDict(frozen=True)

    name: str
    memory_bytes: int


class _Task(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    model_id: str
    base_model: str
    precision: Precision
    machines: tuple[MachineMemory, ...] = ()


class ValidateTask(_Task):
    """Look at weights and say what is wrong with them."""

    type: Literal["validate"] = "validate"
    source: Source | None = None
    prefix: str | None = None
    """Of a published version, when there is no source."""


class UploadTask(_Task):
    """Bring weights into the platform's object store as a version."""

    type: Literal["upload"] = "upload"
    source: Source
    name: str
    mode: Literal["copy", "reference"] = "copy"
    validation: bool = True
    listing: str | None = None
    """The fingerprint of the folder that was validated; the upload refuses any other."""


class TuneTask(_Task):
    """Make a new model of one, by training it on conversations. `model_id` is the one it begins with."""

    type: Literal["finetune"] = "finetune"
    precision: Precision = "BF16"
    prefix: str
    """Where the weights that it begins with are published."""
    spec: TuningSpec
    machine: MachineType
    finish: bool = False
    """Train no further: the newest checkpoint is the result."""

    @property
    def output_model_id(self) -> str:
        return output_model_id(self.job_id)


class QuantizeTask(_Task):
    """Make a version in another precision of a model, `model_id`."""

    type: Literal["quantize"] = "quantize"
    precision: Quantized
    """That of the version to be made."""
    base_precision: Precision = "BF16"
    prefix: str
    """Where the weights that it begins with are published."""
    spec: QuantizeSpec
    machine: MachineType
    """Where it runs."""
    targets: tuple[MachineType, ...] = ()
    """Where the version is to be servable."""

    @property
    def output_model_id(self) -> str:
        """The model whose version it makes: its own, or a new one."""
        return self.model_id if self.spec.output_model_name is None else output_model_id(self.job_id)


def output_model_id(job_id: str) -> str:
    """The ID of the model that a job makes: known before there is one, and never another's."""
    return f"m-{job_id.removeprefix('job-')}"


def job_of_model(model_id: str) -> str:
    """The ID of the job that would have made a model of this ID."""
    return f"job-{model_id.removeprefix('m-')}"


AnyTask = ValidateTask | UploadTask | TuneTask | QuantizeTask
Task = Annotated[AnyTask, Field(discriminator="type")]
TASK: TypeAdapter[AnyTask] = TypeAdapter(Task)


class JobProgress(BaseModel):
    """How far a job is; replaced about once a second."""

    model_config = ConfigDict(frozen=True)

    phase: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    training: "TrainingProgress | None" = None
    """Of a job that trains, from its first iteration on; while `phase` is another than "training", an attempt's before.
    """
    compression: "CompressionProgress | None" = None
    """Of a job that compresses, from its first layer on."""

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        if self.training:
            return self.training.fraction
        if self.compression:
            return self.compression.fraction
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 0.0


WAITING_FOR_MACHINES = "waiting for machines"
"""The phase of a job that has prepared its training, which no machine has begun: nothing is lost if it ends here."""
TRAINING = "training"
"""The phase of a job whose training runs, and has the machines that it needs."""


class TrainingProgress(BaseModel):
    """How far a training is, and how fast."""

    model_config = ConfigDict(frozen=True)

    iteration: int
    """The last one done, from 1; 0 before it."""
    iterations: int
    loss: float | None = None
    """Mean over the trained tokens of the last iteration."""
    learning_rate: float | None = None
    validation_loss: float | None = None
    s_per_iteration: float | None = None
    """The usual time of one; None while that is not known."""
    tokens_per_s: float | None = None
    """Over all cards, padding not counted."""
    tokens_per_s_per_card: float | None = None
    tokens_per_iteration: float | None = None
    iterated_s: float = 0.0
    """How long it has trained, over all attempts: queues and preparation do not count."""

    @property
    def fraction(self) -> float:
        return min(1.0, self.iteration / self.iterations) if self.iterations else 1.0

    @property
    def eta_s(self) -> float | None:
        """Until the last iteration; None while the time of one is not known."""
        return None if self.s_per_iteration is None else (self.iterations - self.iteration) * self.s_per_iteration

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that people watch; those that are not known are left out."""
        told = self.model_dump(exclude_none=True)
        return {name: float(value) for name, value in told.items() if math.isfinite(value)}


class CompressionProgress(BaseModel):
    """How far a compression is, and how fast."""

    model_config = ConfigDict(frozen=True)

    layer: int
    """The last one done, from 1; 0 before it."""
    layers: int
    phase: str
    """What is done to the layer that is next, or after the last one."""
    s_per_layer: float | None = None
    """The usual time of one; None while that is not known."""

    @property
    def fraction(self) -> float:
        return min(1.0, self.layer / self.layers) if self.layers else 1.0

    @property
    def eta_s(self) -> float | None:
        """Until the last layer; None while the time of one is not known."""
        return None if self.s_per_layer is None else max(0, self.layers - self.layer) * self.s_per_layer

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that people watch; those that are not known are left out."""
        told = {"layer": float(self.layer), "layers": float(self.layers), "s_per_layer": self.s_per_layer}
        return {name: value for name, value in told.items() if value is not None and math.isfinite(value)}


class JobOutcome(BaseModel):
    """How a job ended; written once, last of all."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    stopped: bool = False
    """It was asked to stop, and did: TuneTask at a checkpoint, QuantizeTask after a layer."""
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    facts: Facts | None = None
    listing: str | None = None
    """ValidateTask: the fingerprint of the folder that was looked at."""
    read_bytes: int = 0
    prefix: str | None = None
    """UploadTask, TuneTask, QuantizeTask: where the version is published."""
    digest: str | None = None
    size_bytes: int = 0
    metrics: dict[str, float] = {}
    """TuneTask, QuantizeTask: the last figures."""
    sample: str = ""
    """TuneTask: what the new model answered to the dataset's first question, cut short."""
    quality: QualityCard | None = None
    """QuantizeTask: what it has cost."""
    quality_failures: tuple[str, ...] = ()
    """QuantizeTask: where the gate was not passed, in sentences; the version is published all the same."""
    recipe: Recipe | None = None
    """QuantizeTask: how it was made."""
