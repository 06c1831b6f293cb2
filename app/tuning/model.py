"""The model that is trained: loaded from a folder, made ready for its method, and asked for losses and gradients."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from app.core.tuning_spec import ComputePrecision, TrainingPlan
from app.tuning.adapters import Adapters
from app.tuning.loss import summed_cross_entropy
from app.tuning.packing import ATTENTION, Packed, keeps_apart


def computing_dtype(precision: ComputePrecision, device: torch.device) -> torch.dtype:
    """auto: bf16 where it is the faster one: on GPUs that have it, and on CPUs with AMX.

    AVX512's bf16 alone gives dense layers about two thirds of the speed that they have in fp32.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def load(folder: Path, dtype: torch.dtype | str = "auto") -> Any:
    """A causal language model from a local folder; nothing is fetched and no code from the folder runs."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, trust_remote_code=False, low_cpu_mem_usage=True
    )


class TrainedModel:
    """A model with what is trained in it."""

    def __init__(self, folder: Path, plan: TrainingPlan, device: torch.device) -> None:
        self.device = device
        self.model = load(folder, computing_dtype(plan.precision, device)).to(device)
        self.packs = plan.packing and self._tried_packing()
        """Whether several samples may go through at once."""
        self.adapters = Adapters(self.model, plan) if plan.method == "lora" else None
        self.model.train()

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that change, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def spare_memory(self) -> None:
        """Compute each layer again on the way back instead of keeping what it had in between."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def summed_loss(self, batch: Packed) -> torch.Tensor:
        """The summed loss over the batch's trained tokens, an fp32 scalar. Only those reach the output layer."""
        more: dict[str, Any] = {"borders": batch.borders} if self.packs else {}
        output = self.model(
            input_ids=batch.ids, position_ids=batch.positions, logits_to_keep=batch.kept, use_cache=False, **more
        )
        return summed_cross_entropy(output["logits"][0], batch.targets)

    def _tried_packing(self) -> bool:
        usual = self.model.config._attn_implementation
        self.model.eval()
        self.model.set_attn_implementation(ATTENTION)
        if keeps_apart(self.model, self.device):
            return True
        self.model.set_attn_implementation(usual)
        return False
