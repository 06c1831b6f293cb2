"""Compression: what people wish for (S3, table 7-3)."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.core.names import ModelName, ServiceName
from app.core.quality import Gate
from app.core.specs import Spec
from app.core.texts import Line
from app.core.tuning_spec import Dataset, Notify, Quantized, Target

DEFAULT_MIGRATION_STRENGTH = 0.5


class RecipeWishes(Spec):
    """Values of the recipe that are to be other than what would be chosen; what is left out is chosen."""

    group_size: Annotated[int, Field(ge=8, le=1 << 16)] | None = None
    """Weights of one row with one scale; it must divide every width."""
    fp8_layout: Literal["auto", "block", "channel", "tensor"] = "auto"
    """What has one scale in W8A8_FP8."""
    keep: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[\w.]{1,128}$")], ...], Field(max_length=64, strict=False)
    ] = ()
    """Further layers to be kept in high precision, by the last parts of their names."""


class CompressionWish(Spec):
    """What is wished of a compression, whatever its result becomes."""

    description: Annotated[str, Field(max_length=1000)] = ""
    precision: Quantized
    migration_strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much of the activations' range moves into the weights; SmoothQuant-W8A8 alone, 0.5 unless told."""
    calibration: Dataset | None = None
    """Conversations in one of the formats of fine-tuning; None: the set that is shipped."""
    calibration_samples: Annotated[int, Field(ge=1, le=4096)] = 128
    calibration_length: Annotated[int, Field(ge=16, le=32768)] = 512
    """Tokens of one sample."""
    recipe: RecipeWishes = RecipeWishes()
    gate: Gate | None = None
    """How much quality it may cost; None: the defaults of the precision."""
    output: Target | None = None
    """Where the new weights are to lie as well."""
    overwrite: bool = False
    """Whether `output` may have files already: those of the same names are replaced."""
    machine_type: Annotated[str, Field(max_length=64)] | None = None
    auto_stop_s: Annotated[int, Field(ge=60, le=366 * 86_400)] | None = None
    """Stop after so long, counted from when its process began (S3: 1, 2, 4, 6 hours or custom)."""
    keep_logs: Target | None = None
    """Where the log is kept for ever; None: for 30 days, with the job."""
    notify: Notify | None = None

    @field_validator("migration_strength")
    @classmethod
    def _smoothquant_alone(cls, strength: float | None, info: ValidationInfo) -> float | None:
        precision = info.data.get("precision")
        if strength is not None and precision not in (None, "SmoothQuant-W8A8"):
            raise ValueError(f"only SmoothQuant-W8A8 has one, and precision is {precision}: leave it out")
        return strength

    @property
    def strength(self) -> float | None:
        """The migration strength that holds; None where the strategy has none."""
        if self.precision != "SmoothQuant-W8A8":
            return None
        return DEFAULT_MIGRATION_STRENGTH if self.migration_strength is None else self.migration_strength


class QuantizeSpec(CompressionWish):
    """A compression job, in POST /platform/v1/jobs and, as a file, for `python -m jobs.quantize`."""

    type: Literal["quantize"] = "quantize"
    name: ServiceName
    model: Annotated[Line, Field(min_length=1, max_length=128)]
    """A model's ID or its name."""
    output_model_name: ModelName | None = None
    """None: a version of the model itself; a name: a new model that has this version alone (S3's form)."""


class VersionSpec(CompressionWish):
    """The same job, asked for as a version of a model: POST /platform/v1/models/{id}/versions."""

    name: ServiceName | None = None
    """Of the job; None: one that tells the precision and the model."""
