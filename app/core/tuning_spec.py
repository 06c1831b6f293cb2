"""Fine-tuning: what people wish for (S3, table 6-2), and the plan of every value that it leads to."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from app.core.errors import InvalidField
from app.core.model_specs import Source
from app.core.names import ModelName, ServiceName
from app.core.specs import Spec
from app.core.texts import Line

ROWS_PER_ITERATION = 32
"""Conversations that one update of the weights takes (S3, table 6-2)."""
MOST_ITERATIONS = 100_000
DEFAULT_ITERATIONS = 1000
DEFAULT_LENGTH = 4096
"""Tokens of one sample, where neither the wish nor the model says less."""
CHECKPOINTS = 20
"""About how many checkpoints a run writes that says nothing of them."""
VALIDATED_FROM_ROWS = 200
"""With fewer, every row is for training unless `validation_share` says otherwise."""
VALIDATION_SHARE = 0.05
MOST_VALIDATION_ROWS = 512
"""Of those that are set apart without being asked for: each look at them takes time."""

Method = Literal["lora", "full"]
Schedule = Literal["cosine", "linear", "constant"]
ComputePrecision = Literal["auto", "bf16", "fp32"]
Priority = Literal["low", "normal", "high"]
DataFormat = Literal["auto", "moss", "messages", "xlsx", "csv"]
Quantized = Literal["W8A8_FP8", "SmoothQuant-W8A8", "AWQ-W4A16", "W4A8"]


class Dataset(Source):
    """The file of conversations: `s3://BUCKET/FILE` or `file:///FILE`."""

    format: DataFormat = "auto"
    """auto: by the file's name and its first line."""

    @field_validator("uri")
    @classmethod
    def _is_file(cls, uri: str) -> str:
        bucket_and_path = uri.partition("://")[2]
        if uri.endswith("/") or "/" not in bucket_and_path or bucket_and_path == "/":
            raise ValueError("it must name a file, not a folder")
        return uri


class Target(Spec):
    """A folder to write to, in the platform's own kind of storage and with its credentials."""

    uri: Annotated[str, Field(max_length=2048)]
    """`s3://BUCKET/FOLDER` or `file:///FOLDER`."""

    @field_validator("uri")
    @classmethod
    def _known(cls, uri: str) -> str:
        return Source(uri=uri).uri


class Notify(Spec):
    """Whom to tell (S3, table 6-2)."""

    topic: ServiceName
    events: Annotated[tuple[Literal["creating", "completed", "failed", "hanging"], ...], Field(strict=False)] = ()


class TuningSpec(Spec):
    """A fine-tuning job, in POST /platform/v1/jobs and, as a file, for `python -m jobs.finetune`.

    One dial says how long: `iterations`, of 32 rows each, or `epochs`. The rest follows, see `plan`.
    """

    type: Literal["finetune"] = "finetune"
    name: ServiceName
    description: Annotated[str, Field(max_length=1000)] = ""
    model: Annotated[Line, Field(min_length=1, max_length=128)]
    """A model's ID or its name; tuned ones can be tuned again."""
    method: Method = "lora"
    output_model_name: ModelName
    dataset: Dataset
    iterations: Annotated[int, Field(ge=0, le=MOST_ITERATIONS)] | None = None
    """None without `epochs`: 1000. 0 writes the model as it is."""
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    learning_rate: Annotated[float, Field(ge=0, le=0.1)] = 2e-5
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Of the LoRA matrices; `alpha` / `rank` scales what they add."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: (
        Literal["all-linear"]
        | Annotated[
            tuple[Annotated[str, Field(pattern=r"^[\w.]{1,128}$")], ...],
            Field(min_length=1, max_length=64, strict=False),
        ]
    ) = Field("all-linear", union_mode="left_to_right")
    """Layers that LoRA changes, by the last parts of their names."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """The part of all iterations over which the learning rate rises."""
    schedule: Schedule = "cosine"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_length: Annotated[int, Field(ge=16, le=1 << 20)] | None = None
    """Tokens; longer samples are cut. None: what the model takes, at most 4096."""
    packing: bool = True
    """Put short samples beside each other, unseen by one another, instead of padding."""
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 42
    validation_share: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """The part of the rows that is not trained on, to see whether the loss falls there too."""
    checkpoint_every: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] | None = None
    """Iterations."""
    precision: ComputePrecision = "auto"
    """Of the arithmetic; auto: bf16 where the hardware has it."""
    machine_type: Annotated[str, Field(max_length=64)] | None = None
    instances: Annotated[int, Field(ge=1, le=64)] = 1
    """Machines of that type, one worker per card."""
    export: Literal["auto", "manual"] = "auto"
    """manual: the result stays with the job until `jobs/{id}:export`."""
    auto_quantize: Annotated[tuple[Quantized, ...], Field(max_length=4)] = Field((), strict=False)
    """Precisions to be made of the new model."""
    output: Target | None = None
    """Where the new weights are to lie as well."""
    overwrite: bool = False
    """Whether `output` may have files already: those of the same names are replaced."""
    auto_stop_s: Annotated[int, Field(ge=60, le=366 * 86_400)] | None = None
    """Stop at a checkpoint after so long, counted from the first iteration on (S3: 1, 2, 4, 6 hours or custom)."""
    keep_logs: Target | None = None
    """Where the log is kept for ever; None: for 30 days, with the job."""
    notify: Notify | None = None
    preemptible: bool = False
    """Endpoints that wake may have its place: it stops at a checkpoint and is queued again."""
    priority: Priority = "normal"

    @field_validator("epochs")
    @classmethod
    def _one_dial(cls, epochs: float | None, info: ValidationInfo) -> float | None:
        if epochs is not None and info.data.get("iterations") is not None:
            raise ValueError("iterations is given too, and says the same thing: leave one of them out")
        return epochs

    @field_validator("auto_quantize")
    @classmethod
    def _distinct(cls, precisions: tuple[Quantized, ...]) -> tuple[Quantized, ...]:
        if len(set(precisions)) < len(precisions):
            raise ValueError("every precision is named once")
        return precisions


class TrainingPlan(BaseModel):
    """All values of a training run; `origins` says of each where it comes from."""

    model_config = ConfigDict(frozen=True)

    method: Method
    rows: int
    """Conversations in the dataset: the training's and the validation's."""
    validation_rows: int
    rows_per_iteration: int = ROWS_PER_ITERATION
    iterations: int
    epochs: float
    """How often each row is trained on."""
    learning_rate: float
    schedule: Schedule
    warmup_iterations: int
    weight_decay: float
    rank: int
    alpha: float
    dropout: float
    targets: Literal["all-linear"] | tuple[str, ...]
    max_length: int
    packing: bool
    seed: int
    checkpoint_every: int
    precision: ComputePrecision
    origins: dict[str, str] = {}

    @property
    def training_rows(self) -> int:
        return self.rows - self.validation_rows

    def told(self) -> list[str]:
        """A line for each value, for the log."""
        values = self.model_dump(exclude={"origins"})
        return [f"{name}: {value} ({self.origins.get(name, 'given')})" for name, value in values.items()]


AS_GIVEN = (
    *("method", "learning_rate", "schedule", "weight_decay", "rank", "alpha", "dropout", "targets", "packing", "seed"),
    "precision",
)
"""What the plan takes from the wish as it is."""


def plan(spec: TuningSpec, rows: int, longest_tokens: int | None = None) -> TrainingPlan:
    """What training with these conversations is to be.

    `longest_tokens` is the most that the model takes. Raises InvalidField where the wish does not go with the data.
    """
    if rows < 1:
        raise InvalidField("dataset has no conversation.", "dataset")
    values: dict[str, Any] = {name: getattr(spec, name) for name in AS_GIVEN}
    origins = {name: "given" if name in spec.model_fields_set else "default" for name in AS_GIVEN}
    origins |= {"rows": "the dataset", "rows_per_iteration": "fixed"}

    if spec.validation_share is not None:
        validation_rows = math.floor(rows * spec.validation_share)
        origins["validation_rows"] = f"derived from validation_share {spec.validation_share:g}"
    elif rows < VALIDATED_FROM_ROWS:
        validation_rows, origins["validation_rows"] = 0, f"default: none below {VALIDATED_FROM_ROWS} rows"
    else:
        validation_rows = min(math.floor(rows * VALIDATION_SHARE), MOST_VALIDATION_ROWS)
        origins["validation_rows"] = f"default: {VALIDATION_SHARE:.0%} of the rows, at most {MOST_VALIDATION_ROWS}"
    training_rows = rows - validation_rows

    if spec.epochs is None:
        iterations = DEFAULT_ITERATIONS if spec.iterations is None else spec.iterations
        origins["iterations"] = "default" if spec.iterations is None else "given"
        epochs = iterations * ROWS_PER_ITERATION / training_rows
        origins["epochs"] = f"derived from iterations and {training_rows} rows of training"
    else:
        epochs, origins["epochs"] = spec.epochs, "given"
        iterations = iterations_for(training_rows, epochs)
        origins["iterations"] = f"derived from epochs and {training_rows} rows of training"
        if iterations > MOST_ITERATIONS:
            raise InvalidField(
                f"epochs is {epochs:g}. With {training_rows} rows that is {iterations} iterations; at most "
                f"{MOST_ITERATIONS} are allowed.",
                "epochs",
            )

    origins["max_length"] = "given" if spec.max_length else f"derived from the model's length, at most {DEFAULT_LENGTH}"
    origins["checkpoint_every"] = "given" if spec.checkpoint_every else f"derived from iterations / {CHECKPOINTS}"
    origins["warmup_iterations"] = f"derived from warmup_ratio {spec.warmup_ratio:g}"
    return TrainingPlan(
        **values,
        rows=rows,
        validation_rows=validation_rows,
        iterations=iterations,
        epochs=epochs,
        warmup_iterations=math.floor(iterations * spec.warmup_ratio),
        max_length=sample_length(spec, longest_tokens),
        checkpoint_every=spec.checkpoint_every or max(1, min(500, math.ceil(iterations / CHECKPOINTS))),
        origins=origins,
    )


def iterations_for(rows: int, epochs: float) -> int:
    """Iterations of one epoch, the last one perhaps not full, times epochs (S3, table 6-2): 3200 rows, 2 -> 200."""
    return math.ceil(math.ceil(rows / ROWS_PER_ITERATION) * epochs)


def sample_length(spec: TuningSpec, longest_tokens: int | None = None) -> int:
    """Tokens at which samples are cut. Raises InvalidField for more than the model takes."""
    if spec.max_length is None:
        return min(DEFAULT_LENGTH, longest_tokens or DEFAULT_LENGTH)
    if longest_tokens and spec.max_length > longest_tokens:
        raise InvalidField(f"max_length is {spec.max_length}. The model takes at most {longest_tokens}.", "max_length")
    return spec.max_length


def advised_epochs(rows: int) -> tuple[int, int]:
    """(low, high) for so many rows: hundreds, thousands, more (S3, table 6-2)."""
    return (4, 8) if rows < 1000 else (2, 4) if rows < 10_000 else (1, 2)
