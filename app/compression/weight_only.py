"""Compression that looks at nothing but weights: matrix by matrix, and the model is never loaded."""

from collections.abc import Iterator

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.utils import get_direct_state_dict
from llmcompressor.entrypoints.model_free.lifecycle import calibrate_weight, initialize_quantized_linear

from app.compression.checkpoint import Checkpoint
from app.compression.schemes import scheme_of
from app.core.compression_memory import SHARD_BYTES
from app.core.recipe import Recipe, linear_layers


class WeightOnly:
    """The parts of one such compression, each a shard of the new model."""

    phase = "quantizing"

    def __init__(self, source: Checkpoint, recipe: Recipe) -> None:
        self._source = source
        self._scheme = scheme_of(recipe)
        self._quantized = set(linear_layers(source.shapes)) - set(recipe.keep)
        self.parts: list[list[str]] = list(_gathered(source.sizes))
        """Names of tensors."""

    def make(self, number: int) -> tuple[dict[str, torch.Tensor], list[str]]:
        """New tensors of a part, from 0, and the names of those that stay as they are."""
        made: dict[str, torch.Tensor] = {}
        kept = []
        for name in self.parts[number]:
            layer = name.removesuffix(".weight")
            if name.endswith(".weight") and layer in self._quantized:
                made |= {f"{layer}.{last}": tensor for last, tensor in self._turned(name).items()}
            else:
                kept.append(name)
        return made, kept

    def _turned(self, name: str) -> dict[str, torch.Tensor]:
        weight = self._source.load([name])[name]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module = initialize_quantized_linear(weight, self._scheme, device)
        with torch.no_grad():
            calibrate_weight(module)
        compressor = BaseCompressor.get_value_from_registry(self._scheme.format.value)
        with torch.no_grad():
            found: dict[str, torch.Tensor] = compressor.compress(get_direct_state_dict(module), self._scheme)
        return {last: tensor.cpu() for last, tensor in found.items() if tensor is not None}


def _gathered(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Names in their order, so that what each part becomes stays within SHARD_BYTES, at half a byte for each."""
    part: list[str] = []
    gathered = 0
    for name, size_bytes in sizes.items():
        if part and gathered + size_bytes > 2 * SHARD_BYTES:
            yield part
            part, gathered = [], 0
        part.append(name)
        gathered += size_bytes
    yield part
