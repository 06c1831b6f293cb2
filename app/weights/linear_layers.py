"""The linear layers of a checkpoint, by which it is decided where it can be served."""

from collections import Counter
from typing import Any

from app.core.findings import LinearLayer
from app.weights.checkpoint import Checkpoint
from app.weights.expected_tensors import Architecture
from app.weights.quantization import Scheme
from app.weights.stored_tensors import unpack

_LAST = "lm_head"
_MOST = 256
"""Kinds of layers; no known model has a tenth of it."""


def linear_layers(
    architecture: Architecture, checkpoint: Checkpoint | None, scheme: Scheme | None
) -> tuple[LinearLayer, ...]:
    """Of plain weights all but the last; of quantized ones those that are quantized. Each name and shape once."""
    found: Counter[tuple[str, int, int]] = Counter()
    stored = unpack(checkpoint.tensors, scheme).weights if checkpoint and scheme else {}
    for weight in architecture.linear & architecture.tensors.keys():
        shape, name = architecture.tensors[weight], weight.removesuffix(".weight").rpartition(".")[2]
        if len(shape) != 2 or name == _LAST:
            continue
        if scheme is None or ((tensor := stored.get(weight)) and tensor.quantized):
            found[name, shape[0], shape[1]] += 1
    layers = (
        LinearLayer(name=name, rows=rows, columns=columns, count=count)
        for (name, rows, columns), count in sorted(found.items())
    )
    return tuple(layers)[:_MOST]


def has_experts(architecture: Architecture, checkpoint: Checkpoint | None, scheme: Scheme | None) -> bool:
    """Of plain weights whether there are any, of quantized ones whether any of them is quantized."""
    if checkpoint and scheme:
        stored = unpack(checkpoint.tensors, scheme).weights
        return any(tensor.quantized and ".experts." in name for name, tensor in stored.items())
    return any(".experts." in name for name in architecture.tensors)


def heads_of(config: Any) -> tuple[int | None, int | None]:
    """How many heads attention has and how wide one is; not of latent attention, which has several widths."""
    text = config.get_text_config()
    heads, width = getattr(text, "num_attention_heads", None), getattr(text, "head_dim", None)
    if type(heads) is not int or heads < 1:
        return None, None
    if getattr(text, "kv_lora_rank", None):
        return heads, None
    hidden = getattr(text, "hidden_size", None)
    if type(width) is not int:
        width = hidden // heads if type(hidden) is int else None
    return heads, width
