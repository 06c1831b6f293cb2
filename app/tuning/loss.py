"""Cross entropy over a large vocabulary, in pieces that stay in the processor's cache."""

from typing import Any

import torch

_PIECE_VALUES = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Logits that are looked at together, in fp32."""


class _SummedCrossEntropy(torch.autograd.Function):  # type: ignore[misc] # torch counts as Any
    """torch's own makes three more copies of all logits, and in fp32."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        norms = torch.cat([torch.logsumexp(piece.float(), dim=-1) for piece in _pieces(logits)])
        ctx.save_for_backward(logits, targets, norms)
        return (norms - logits.gather(1, targets[:, None])[:, 0].float()).sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, norms = ctx.saved_tensors
        grad = torch.empty_like(logits)
        start = 0
        for piece in _pieces(logits):
            end = start + len(piece)
            chances = torch.exp(piece.float() - norms[start:end, None])
            chances[torch.arange(len(piece), device=piece.device), targets[start:end]] -= 1
            grad[start:end] = chances.mul_(grads[0])
            start = end
        return grad, None


def summed_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sum over all places of -log p(target): logits (places, vocabulary), targets (places,) -> an fp32 scalar."""
    loss: torch.Tensor = _SummedCrossEntropy.apply(logits, targets)
    return loss


def _pieces(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows = max(1, _PIECE_VALUES.get(logits.device.type, 1 << 28) // logits.shape[1])
    pieces: tuple[torch.Tensor, ...] = torch.split(logits, rows)
    return pieces
