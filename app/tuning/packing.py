"""Samples beside each other in one row: dense layers see no padding, attention keeps to each sample.

transformers keeps packed samples apart only with flash attention; elsewhere it would build a mask of all tokens by all
tokens. Here attention runs sample by sample, which needs no mask and does no work that a mask would discard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from app.tuning.batches import Ids, Trained

ATTENTION = "packed"
"""Our attention's name in transformers."""
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers through which nothing passes from one sample to the next; linear attention is none of them."""


@dataclass(frozen=True)
class Borders:
    """Where the samples of a row end."""

    lengths: tuple[int, ...]
    offsets: torch.Tensor
    """int32, 0 and then each sample's end, on the device."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Borders":
        return cls(tuple(lengths), torch.tensor((0, *accumulate(lengths)), dtype=torch.int32, device=device))


@dataclass(frozen=True)
class Packed:
    """What goes through the model at once; all shapes are of one row."""

    ids: torch.Tensor
    """(1, tokens)."""
    positions: torch.Tensor
    """(1, tokens), from 0 in each sample."""
    borders: Borders
    kept: torch.Tensor
    """(trained,): the places whose next token is learnt."""
    targets: torch.Tensor
    """(trained,): those next tokens."""

    @classmethod
    def of(cls, samples: Sequence[tuple[Ids, Trained]], device: torch.device) -> "Packed":
        lengths = [len(ids) for ids, _ in samples]
        ids = np.concatenate([ids for ids, _ in samples]).astype(np.int64)
        learnt = np.concatenate([_learnt(trained) for _, trained in samples])
        kept = np.flatnonzero(learnt)
        positions = np.concatenate([np.arange(length) for length in lengths])
        return cls(
            ids=torch.from_numpy(ids)[None].to(device),
            positions=torch.from_numpy(positions)[None].to(device),
            borders=Borders.of(lengths, device),
            kept=torch.from_numpy(kept).to(device),
            targets=torch.from_numpy(ids[kept + 1]).to(device),
        )


def trained_tokens(trained: Trained) -> int:
    """How many of a sample's tokens are learnt: a first one has nothing before it that could lead to it."""
    return int(trained[1:].sum())


def _learnt(trained: Trained) -> Trained:
    """For each place whether its next token is learnt."""
    return np.append(trained[1:], False)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    borders: Borders | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample of one row: query (1, heads, tokens, size) -> (1, tokens, heads, size).

    Raises ValueError for what it does not compute: logits that are capped, attention sinks, more rows.
    """
    if borders is None or query.shape[0] != 1 or any(more.get(name) is not None for name in ("softcap", "s_aux")):
        raise ValueError("this attention is not of the kind that packed samples are kept apart in")
    grouped = key.shape[1] != query.shape[1]
    if query.is_cuda and query.dtype in {torch.bfloat16, torch.float16} and not dropout:
        return _by_one_kernel(query, key, value, scaling, sliding_window, borders, grouped), None
    parts = []
    # Not by slices, each of which would make a gradient as long as the row on the way back.
    for one in zip(*(states.split(borders.lengths, dim=2) for states in (query, key, value)), strict=True):
        length = one[0].shape[2]
        mask = _window(length, sliding_window, query.device) if sliding_window and length > sliding_window else None
        parts.append(
            scaled_dot_product_attention(
                *one, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            ).transpose(1, 2)
        )
    return torch.cat(parts, dim=1), None


def _window(length: int, window: int, device: torch.device) -> torch.Tensor:
    """True where a place may look: at itself and the `window - 1` before it."""
    places = torch.arange(length, device=device)
    back = places[:, None] - places[None, :]
    return (back >= 0) & (back < window)


def _by_one_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    borders: Borders,
    grouped: bool,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 (only where there is a GPU)

    rows = [states[0].transpose(0, 1) for states in (query, key, value)]
    return varlen_attn(
        *rows,
        borders.offsets,
        borders.offsets,
        max(borders.lengths),
        max(borders.lengths),
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=grouped,
    )[None]


AttentionInterface.register(ATTENTION, attention)


def keeps_apart(model: Any, device: torch.device) -> bool:
    """Whether this model, with our attention, says of packed samples what it says of each alone.

    Tried on three short ones, for a family may pass something else along the row, or have attention of its own kind.
    """
    text = model.config.get_text_config()
    if not set(getattr(text, "layer_types", None) or ()) <= KNOWN_LAYERS:
        return False
    random = np.random.Generator(np.random.Philox(key=[0, 0]))
    most = min(text.vocab_size, 1 << 15)
    alone = [random.integers(0, most, length, dtype=np.int32) for length in (7, 3, 12)]
    try:
        with torch.no_grad():
            beside = _logits(model, alone, device)
            apart = torch.cat([_logits(model, [ids], device) for ids in alone])
    except (TypeError, ValueError):  # a family that does not hand our argument on to its attention
        return False
    tolerance = 1e-3 if apart.dtype == torch.float32 else 5e-2
    return bool((beside - apart).float().norm() <= tolerance * apart.float().norm())


def _logits(model: Any, ids: list[Ids], device: torch.device) -> torch.Tensor:
    """(tokens, vocabulary)."""
    row = Packed.of([(one, np.ones(len(one), dtype=np.bool_)) for one in ids], device)
    logits: torch.Tensor = model(input_ids=row.ids, position_ids=row.positions, borders=row.borders, use_cache=False)[
        "logits"
    ][0]
    return logits
