"""How much memory a compression takes at its peak, foretold from a model's config and the sizes of its tensors. Pure.

The peak is that of the process: its libraries, one layer with what quantizing makes of it, and what the calibration
samples leave between two layers. The model as a whole is never there.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.core.tuning_spec import Quantized

PROCESS_BYTES = 560 << 20
"""Python, torch, transformers and llm-compressor before any weight (548 MiB with the pins of pyproject.toml)."""
SHARD_BYTES = 1 << 30
"""At most so much of new weights is gathered before it is written; a single larger tensor is written by itself."""
FP32_UP_TO_BYTES = 4 << 30
"""Of weights: quality is measured with models that compute in fp32; larger ones compute in bf16, as they are."""
WINDOW_TOKENS = 1024
"""Of held-out text that a model is given at once when its quality is measured."""
_VALUE_BYTES = 2
"""Of an activation: models compute in 16 bits."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def predict_peak_bytes(
    precision: Quantized,
    config: Mapping[str, Any],
    tensors: Mapping[str, int] | None,
    samples: int,
    length: int,
) -> int:
    """Of the process that compresses, in bytes.

    `config` is config.json, `tensors` each tensor's bytes as files' headers say, None where only the config is known;
    `samples` of `length` tokens are for calibration.
    """
    text = _text(config)
    sizes = tensors if tensors is not None else tensor_bytes(text)
    if precision == "W8A8_FP8":
        return PROCESS_BYTES + _shard_bytes(sizes)
    layer = max(layer_bytes(sizes).values(), default=0)
    embedding = max((size for name, size in sizes.items() if not _LAYER.search(name)), default=0)
    return PROCESS_BYTES + embedding + 2 * layer + _activation_bytes(precision, text, samples, length)


def predict_measuring_bytes(config: Mapping[str, Any], tensors: Mapping[str, int]) -> int:
    """Of the process that measures quality, in bytes: one whole model at a time, and what it says of a window."""
    weights = sum(tensors.values())
    vocabulary = _number(_text(config), "vocab_size", "padded_vocab_size", default=32_000)
    held = 2 * weights if weights <= FP32_UP_TO_BYTES else weights
    return PROCESS_BYTES + held + 4 * WINDOW_TOKENS * vocabulary * 4


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a model that also sees or hears, the part that writes."""
    found = config.get("text_config")
    return found if isinstance(found, Mapping) and found else config


def layer_bytes(tensors: Mapping[str, int]) -> dict[str, int]:
    """The bytes of each layer of a stack, by what comes before its tensors' own names."""
    found: dict[str, int] = {}
    for name, size_bytes in tensors.items():
        if match := _LAYER.search(name):
            found[name[: match.end()]] = found.get(name[: match.end()], 0) + size_bytes
    return found


def tensor_bytes(config: Mapping[str, Any]) -> dict[str, int]:
    """About the tensors that a config's model has: embeddings and layers of attention and MLP, experts included."""
    hidden = _number(config, "hidden_size", default=4096)
    heads = _number(config, "num_attention_heads", default=32)
    head = _number(config, "head_dim", default=hidden // heads)
    keys = _number(config, "num_key_value_heads", default=heads)
    inner = _number(config, "intermediate_size", "ffn_hidden_size", default=4 * hidden)
    experts = _number(config, "num_local_experts", "num_experts", "n_routed_experts", default=0)
    expert = _number(config, "moe_intermediate_size", default=inner)
    mlp = 3 * hidden * (experts * expert if experts else inner)
    attention = 2 * hidden * head * (heads + keys)
    each = _VALUE_BYTES * (mlp + attention + 2 * hidden)
    layers = _number(config, "num_hidden_layers", "num_layers", default=32)
    vocabulary = _number(config, "vocab_size", "padded_vocab_size", default=32_000)
    found = {f"model.layers.{number}.all": each for number in range(layers)}
    return {"model.embed_tokens.weight": _VALUE_BYTES * vocabulary * hidden, **found}


def memory_problem(predicted_bytes: int, free_bytes: int, where: str) -> str | None:
    """Why it does not fit, with both numbers; None: it does."""
    if predicted_bytes <= free_bytes:
        return None
    return (
        f"It takes {predicted_bytes / (1 << 30):.1f} GiB at its peak, and {where} has {free_bytes / (1 << 30):.1f} GiB "
        "for it. Choose a machine type with more memory, or lower calibration_samples or calibration_length."
    )


def _shard_bytes(sizes: Mapping[str, int]) -> int:
    """Half of what was 16 bits, gathered until it is written, and the largest matrix while it is turned.

    What stays as it is, such as embeddings, goes from file to file in small pieces.
    """
    layers = [size_bytes for name, size_bytes in sizes.items() if _LAYER.search(name)]
    largest = max(layers, default=0)
    return min(sum(layers) // 2, SHARD_BYTES + largest // 2) + 4 * largest


def _activation_bytes(precision: Quantized, config: Mapping[str, Any], samples: int, length: int) -> int:
    hidden = _number(config, "hidden_size", default=4096)
    heads = _number(config, "num_attention_heads", default=32)
    head = _number(config, "head_dim", default=hidden // heads)
    inner = _number(config, "intermediate_size", "ffn_hidden_size", default=4 * hidden)
    tokens = samples * length
    one_sample = length * (12 * hidden + 8 * inner) * _VALUE_BYTES + heads * length * length * (4 + 2 * _VALUE_BYTES)
    if precision == "SmoothQuant-W8A8":
        return tokens * hidden * _VALUE_BYTES + one_sample
    # What goes into each part whose output is compared is kept, and what comes out of it, before and after.
    kept = hidden + 2 * hidden + heads * head + inner
    compared = 2 * max(hidden, heads * head)
    return tokens * (kept + compared) * _VALUE_BYTES + one_sample


def _number(config: Mapping[str, Any], *names: str, default: int) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return default
