"""How long a compression takes: by the product's table (S3, table 7-4), and by what was measured here. Pure."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.specs import Spec
from app.core.texts import Line
from app.core.tuning_spec import Quantized


class CompressionEstimateSpec(Spec):
    """What is to be compressed, as far as its duration depends on it."""

    type: Literal["quantize"]
    model: Annotated[Line, Field(min_length=1, max_length=128)]
    """A model's ID or name, or a base model of the catalogue."""
    precision: Quantized
    machine_type: Annotated[str, Field(max_length=64)] | None = None


class CompressionSpan(BaseModel):
    """A duration from its shortest to its longest."""

    model_config = ConfigDict(frozen=True)

    hours: tuple[float, float]
    source: str


def from_table(minutes: tuple[int, int] | None, base_model: str) -> CompressionSpan | None:
    """Of the table, which speaks of machines with cards; None for what is not in it."""
    if minutes is None:
        return None
    low, high = minutes
    return CompressionSpan(hours=(low / 60, high / 60), source=f"table 7-4 of the product's guide, {base_model}")


def from_runs(seconds: Sequence[float], source: str) -> CompressionSpan | None:
    """The range of what finished jobs took; None while there is none."""
    known = [one for one in seconds if one > 0]
    return CompressionSpan(hours=(min(known) / 3600, max(known) / 3600), source=source) if known else None
