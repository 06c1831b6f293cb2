"""LoRA: peft says which layers are changed and how that is stored; the arithmetic is ours.

A changed layer computes y = x Wᵀ + s (x Aᵀ) Bᵀ (Hu et al. 2021, section 4.1). In fp32, W + s B A is made once for
each update of A and B, so that the way forward is one product and not three, and the way back saves another two. In
bf16, whose eight bits would swallow a small s B A beside W, the products stay apart and are added as they are made.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from torch.nn.functional import linear

from app.core.errors import InvalidField
from app.core.tuning_spec import TrainingPlan

ADAPTER = "default"


class _Product(torch.autograd.Function):  # type: ignore[misc] # torch counts as Any
    """x (..., in), weight (out, in), a (rank, in), b (out, rank) -> (..., out); the weight and the bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        merged: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale, ctx.merged = scale, merged
        y = linear(x, weight, bias)
        if not merged:
            y.view(-1, y.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]) @ a.t(), b.t(), alpha=scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        flat, grad = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, grads[0].shape[-1])
        narrow = grad @ b
        grad_a = (narrow.t() @ flat).mul_(ctx.scale)
        grad_b = ((flat @ a.t()).t() @ grad).t().mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            if not ctx.merged:
                grad_x.addmm_(narrow, a, alpha=ctx.scale)
            grad_x = grad_x.view_as(x)
        return grad_x, None, None, grad_a, grad_b, None, None


class Adapters:
    """LoRA matrices in a model, in place. They begin as nothing: B is 0."""

    def __init__(self, model: Any, plan: TrainingPlan) -> None:
        """Freezes everything else. Raises InvalidField for one of `plan.targets` that is no layer LoRA can change."""
        if isinstance(plan.targets, tuple):
            _check_targets(model, plan.targets)
        targets = list(plan.targets) if isinstance(plan.targets, tuple) else plan.targets
        config = LoraConfig(
            r=plan.rank, lora_alpha=plan.alpha, lora_dropout=plan.dropout, target_modules=targets, task_type="CAUSAL_LM"
        )
        torch.manual_seed(plan.seed)
        self.peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
        self._layers = [layer for layer in self.peft_model.modules() if type(layer) is PeftLinear]
        # Where dropout changes what A sees, peft's own products are right, and W must stay as it is.
        self._merged: dict[PeftLinear, torch.Tensor] = {}
        if plan.dropout:
            return
        for layer in self._layers:
            weight = layer.base_layer.weight
            if weight.dtype == torch.float32:
                self._merged[layer] = weight.data
                weight.data = weight.data.clone()
            layer.forward = MethodType(_forward, layer)
            layer.merged_by_us = layer in self._merged

    def changed(self) -> None:
        """To be called after every change of A and B."""
        for layer, frozen in self._merged.items():
            a, b = _matrices(layer)
            torch.addmm(frozen, b, a, alpha=layer.scaling[ADAPTER], out=layer.base_layer.weight.data)

    def into_weights(self) -> None:
        """Add what was learnt to the weights, each in its own precision, computed in fp32."""
        for layer in self._layers:
            weight = layer.base_layer.weight.data
            a, b = _matrices(layer)
            changed = torch.addmm(weight.float(), b.float(), a.float(), alpha=layer.scaling[ADAPTER])
            layer.base_layer.weight.data = changed.to(weight.dtype)


def _check_targets(model: Any, targets: Sequence[str]) -> None:
    """Each one is the name, or the end of the name, of linear layers with weights of their own.

    peft would pass over a misspelled one beside others, and give matrices to the embedding that are lost in the result.
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    embedding = model.get_input_embeddings()
    shared = {name for name, layer in linear.items() if embedding is not None and layer.weight is embedding.weight}
    for target in targets:
        meant = {name for name, _ in model.named_modules() if name == target or name.endswith(f".{target}")}
        if not meant or not meant <= linear.keys() - shared:
            why = "shares its weights with the embedding" if meant & shared else "is no linear layer of the model"
            names = ", ".join(sorted({name.rpartition(".")[2] for name in linear.keys() - shared}))
            raise InvalidField(f"targets: {target} {why}; there are {names}.", "targets")


def _matrices(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, B), outside of what gradients are made of."""
    return layer.lora_A[ADAPTER].weight.data, layer.lora_B[ADAPTER].weight.data


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    base = layer.base_layer
    product: torch.Tensor = _Product.apply(
        x,
        base.weight,
        base.bias,
        layer.lora_A[ADAPTER].weight,
        layer.lora_B[ADAPTER].weight,
        layer.scaling[ADAPTER],
        layer.merged_by_us,
    )
    return product
