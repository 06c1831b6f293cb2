"""A recipe as llm-compressor's modifiers, in the order in which they act on a layer."""

from typing import Any

from compressed_tensors.quantization.utils import is_module_quantized
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

from app.compression.schemes import scheme_of
from app.core.recipe import Recipe


def modifiers(recipe: Recipe) -> list[Any]:
    """Moves the range of activations into the weights first, in the way of the precision, then rounds the weights."""
    rounding = QuantizationModifier(config_groups={"group_0": scheme_of(recipe)}, ignore=list(recipe.keep))
    if recipe.precision == "SmoothQuant-W8A8":
        return [SmoothQuantModifier(smoothing_strength=recipe.migration_strength), rounding]
    return [_AWQ(), rounding]


class _AWQ(AWQModifier):  # type: ignore[misc] # llm-compressor counts as Any
    """AWQ that leaves inputs alone which go into layers kept in high precision only; its own divides by zero there."""

    def _set_resolved_mappings(self, model: Any) -> None:
        super()._set_resolved_mappings(model)
        self._resolved_mappings[:] = [
            mapping for mapping in self._resolved_mappings if any(map(is_module_quantized, mapping.balance_layers))
        ]
