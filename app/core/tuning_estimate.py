"""How long fine-tuning takes: S3's formula with its table, and with what this platform has measured itself. Pure."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from app.core.errors import InvalidField
from app.core.specs import Spec
from app.core.texts import Line
from app.core.tuning_spec import DEFAULT_ITERATIONS, MOST_ITERATIONS, ROWS_PER_ITERATION, Method, iterations_for

FACTOR = 36.0
"""S3, table 6-3: hours x tokens/s of one iteration; that is 129,600 tokens, of 32 rows with 4,050 each."""
_FLAVOR = re.compile(r"(?:^|[^\d])(\d{1,4})\s*\*")


class EstimateSpec(Spec):
    """What is to be trained, as far as its duration depends on it."""

    type: Literal["finetune"] = "finetune"
    model: Annotated[Line, Field(min_length=1, max_length=128)]
    """A model's ID or name, or a base model of the catalogue."""
    method: Method = "lora"
    iterations: Annotated[int, Field(ge=0, le=MOST_ITERATIONS)] | None = None
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    rows: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    """Conversations in the dataset; with `epochs`."""
    tokens_per_row: Annotated[float, Field(gt=0, le=1 << 20)] | None = None
    """As `modelunit data check` tells; None: as the formula has it, 4,050."""
    machine_type: Annotated[str, Field(max_length=64)] | None = None
    flavor: Annotated[Line, Field(max_length=128)] | None = None
    """Instead of a machine type; the cards are the number before '*', such as 2 in `2*ascend-snt9b2(64GB)`."""
    instances: Annotated[int, Field(ge=1, le=64)] = 1

    @field_validator("epochs")
    @classmethod
    def _one_dial(cls, epochs: float | None, info: ValidationInfo) -> float | None:
        if epochs is not None and info.data.get("iterations") is not None:
            raise ValueError("iterations is given too, and says the same thing: leave one of them out")
        return epochs

    @field_validator("flavor")
    @classmethod
    def _has_cards(cls, flavor: str | None, info: ValidationInfo) -> str | None:
        if flavor is not None and info.data.get("machine_type") is not None:
            raise ValueError("machine_type is given too: leave one of them out")
        if flavor is not None and not cards_of(flavor):
            raise ValueError("it needs the number of cards before '*', such as 2*ascend-snt9b2(64GB)")
        return flavor


class Span(BaseModel):
    """A duration from its shortest to its longest, and the throughput that it follows from."""

    model_config = ConfigDict(frozen=True)

    hours: tuple[float, float]
    tokens_per_s_per_card: tuple[float, float]
    source: str


def cards_of(flavor: str) -> int:
    """The number before '*' in a flavor; 0 where there is none."""
    found = _FLAVOR.search(flavor)
    return int(found[1]) if found else 0


def iterations_of(spec: EstimateSpec) -> int:
    """How many there are. Raises InvalidField for epochs of a dataset of unknown size."""
    if spec.epochs is None:
        return DEFAULT_ITERATIONS if spec.iterations is None else spec.iterations
    if spec.rows is None:
        raise InvalidField("rows is missing: how long epochs are depends on it.", "rows")
    return min(MOST_ITERATIONS, iterations_for(spec.rows, spec.epochs))


def span(
    iterations: int,
    cards: int,
    throughput: tuple[float, float],
    source: str,
    tokens_per_row: float | None = None,
) -> Span:
    """hours = FACTOR x iterations / (cards x throughput), from the high throughput to the low one (S3, chapter 6).

    `cards` are those of all instances; `tokens_per_row` replaces what the factor supposes.
    """
    factor = FACTOR if tokens_per_row is None else ROWS_PER_ITERATION * tokens_per_row / 3600
    low, high = throughput
    hours = (factor * iterations / (cards * high), factor * iterations / (cards * low))
    return Span(hours=hours, tokens_per_s_per_card=throughput, source=source)


def measured(throughputs: Sequence[float]) -> tuple[float, float] | None:
    """The range of what finished jobs reached, in tokens/s/card."""
    known = [one for one in throughputs if one > 0]
    return (min(known), max(known)) if known else None
