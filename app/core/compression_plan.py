"""What is to be done in a compression, and what that takes: by the config and the headers alone. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.compression_memory import predict_measuring_bytes, predict_peak_bytes
from app.core.compression_spec import CompressionWish
from app.core.recipe import Recipe, choose_recipe, linear_layers
from app.core.specs import MachineType


@dataclass(frozen=True)
class Stored:
    """The config and the tensors of weights, as their files' headers say."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    """In bytes."""
    low: str | None = None
    """A tensor that has fewer bits than plain weights have."""

    @property
    def longest_tokens(self) -> int | None:
        """The most that the model takes."""
        text = self.config.get("text_config")
        length = (text if isinstance(text, dict) else self.config).get("max_position_embeddings")
        return length if type(length) is int and length > 0 else None

    @property
    def quantized(self) -> bool:
        return self.low is not None or "quantization_config" in self.config


@dataclass(frozen=True)
class Plan:
    """A recipe, and the memory that its process takes at the most."""

    recipe: Recipe
    quantizing_bytes: int
    measuring_bytes: int
    """What comes after it: comparing the version with the original."""

    @property
    def peak_bytes(self) -> int:
        return max(self.quantizing_bytes, self.measuring_bytes)


def plan(spec: CompressionWish, stored: Stored, targets: Sequence[MachineType]) -> Plan:
    """Raises InvalidField where no recipe goes with the weights and the targets."""
    recipe = choose_recipe(spec, linear_layers(stored.shapes), targets, stored.longest_tokens)
    samples, length = recipe.calibration_samples, recipe.calibration_length
    return Plan(
        recipe,
        predict_peak_bytes(spec.precision, stored.config, stored.sizes, samples, length),
        predict_measuring_bytes(stored.config, stored.sizes),
    )
