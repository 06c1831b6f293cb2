"""How a model is compressed: every value, and why it is what it is. Pure."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.core.tuning_spec import Quantized


class Recipe(BaseModel):
    """Stored with the version as recipe.json, beside the weights."""

    model_config = ConfigDict(frozen=True)

    precision: Quantized
    migration_strength: float | None = None
    """Of SmoothQuant-W8A8 alone."""
    group_size: int | None = None
    block: tuple[int, int] | None = None
    scaled_by: Literal["channel", "group", "block", "tensor"]
    """What of the weights has one scale."""
    keep: tuple[str, ...] = ()
    """Full names of the layers kept in high precision."""
    calibration_samples: int
    calibration_length: int
    """Tokens of one sample."""
    origins: dict[str, str] = {}
    """Why each value is what it is."""
