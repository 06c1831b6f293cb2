"""A recipe in the words of compressed-tensors: what is done to each linear layer, and what config.json says of it."""

from typing import Any

import compressed_tensors
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    preset_name_to_scheme,
)
from torch import nn

from app.core.recipe import Recipe

_FP8 = {"channel": "FP8_DYNAMIC", "block": "FP8_BLOCK", "tensor": "FP8_DYNAMIC"}


def scheme_of(recipe: Recipe) -> QuantizationScheme:
    """Of every linear layer that is quantized."""
    match recipe.precision:
        case "SmoothQuant-W8A8":
            scheme = preset_name_to_scheme("W8A8", ["Linear"])
        case "AWQ-W4A16":
            scheme = preset_name_to_scheme("W4A16", ["Linear"])
        case "W4A8":
            scheme = preset_name_to_scheme("W4AFP8" if recipe.activations == "fp8" else "W4A8", ["Linear"])
        case "W8A8_FP8":
            scheme = preset_name_to_scheme(_FP8[recipe.scaled_by], ["Linear"])
            if recipe.scaled_by == "tensor":
                scheme.weights.strategy = "tensor"
    if recipe.group_size is not None:
        scheme.weights.group_size = recipe.group_size
    if recipe.block is not None:
        scheme.weights.block_structure = list(recipe.block)
    # With FP8 activations engines look for packed weights, and what compressed-tensors infers is not.
    packed = recipe.precision == "W4A8" and recipe.activations == "fp8"
    scheme.format = CompressionFormat.pack_quantized if packed else infer_module_format(nn.Linear, scheme)
    return scheme


def quantization_config(recipe: Recipe) -> dict[str, Any]:
    """What config.json of the new model says of it."""
    scheme = scheme_of(recipe)
    config = QuantizationConfig(
        config_groups={"group_0": scheme},
        ignore=list(recipe.keep),
        format=scheme.format.value,
        quantization_status=QuantizationStatus.COMPRESSED,
    )
    return {
        "version": compressed_tensors.__version__,
        **config.model_dump(mode="json"),
        "quant_method": "compressed-tensors",
    }
