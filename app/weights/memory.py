"""How much memory a model takes to serve: its weights, and the KV cache of one request of full length."""

from collections.abc import Sequence
from typing import Any

from app.core.job_specs import MachineMemory
from app.weights.finding_list import FindingList

_BF16_BYTES = 2
_GIB = 1 << 30


def kv_bytes_per_token(config: Any) -> int:
    """Of the KV cache in BF16, over all layers that keep one."""
    return sum(1 for _ in _windows(config)) * _layer_bytes(config)


def kv_bytes(config: Any, length_tokens: int) -> int:
    """Of one request; layers with a sliding window keep no more than the window."""
    return sum(min(length_tokens, window or length_tokens) for window in _windows(config)) * _layer_bytes(config)


def kv_windows(config: Any) -> tuple[int, int | None]:
    """(bytes of kv_bytes_per_token that belong to layers with a window, the largest window in tokens or None)."""
    windows = [window for window in _windows(config) if window]
    return len(windows) * _layer_bytes(config), max(windows, default=None)


def check_memory(
    weights_bytes: int, cache_bytes: int, length_tokens: int, machines: Sequence[MachineMemory], findings: FindingList
) -> None:
    """Whether any machine type holds both; the engine's own needs are not counted, so this is a lower bound."""
    needed = weights_bytes + cache_bytes
    largest = max(machines, key=lambda machine: machine.memory_bytes, default=None)
    if largest is not None and largest.memory_bytes >= needed:
        return
    findings.add(
        "memory_short",
        "Choose a quantized version or a smaller model, or ask the operator for a larger machine type.",
        found=f"{_told(needed)}: weights {_told(weights_bytes)}, {_told(cache_bytes)} for {length_tokens} tokens",
        expected=f"at most {_told(largest.memory_bytes)}, {largest.name}" if largest else "no machine type is known",
        warning=largest is None,
    )


def _windows(config: Any) -> list[int | None]:
    """For each layer with a KV cache its window in tokens, None for all of them."""
    text = config.get_text_config()
    layers: int = text.num_hidden_layers
    sliding = _count(text, "sliding_window") if getattr(text, "use_sliding_window", True) else None
    kinds = getattr(text, "layer_types", None)
    if not isinstance(kinds, list):
        return [sliding] * layers
    windows = {
        "full_attention": None,
        "sliding_attention": sliding,
        "chunked_attention": _count(text, "attention_chunk_size"),
    }
    return [windows[kind] for kind in kinds[:layers] if kind in windows]


def _layer_bytes(config: Any) -> int:
    text = config.get_text_config()
    latent = _count(text, "kv_lora_rank")
    if latent:  # multi-head latent attention (DeepSeek-V2): one compressed vector instead of keys and values
        return (latent + (_count(text, "qk_rope_head_dim") or 0)) * _BF16_BYTES
    heads = _count(text, "num_key_value_heads") or _count(text, "num_attention_heads") or 1
    size = _count(text, "head_dim") or (_count(text, "hidden_size") or 0) // (_count(text, "num_attention_heads") or 1)
    return 2 * heads * size * _BF16_BYTES  # a key and a value for each head


def _count(config: Any, field: str) -> int | None:
    value = getattr(config, field, None)
    return value if type(value) is int and value > 0 else None


def _told(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
