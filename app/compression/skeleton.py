"""A model without weights, whose layers are filled from files when their turn comes and emptied when it is over."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization.utils import is_module_quantized
from compressed_tensors.utils import get_direct_state_dict
from llmcompressor.modeling.moe.linearize import get_non_linearized_moes
from llmcompressor.modeling.offset_norm import CalibrationOffsetNorm
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from app.compression.checkpoint import Checkpoint, WeightsUnusable
from app.compression.mixtures import linear_experts

_MADE_BY_QUANTIZING = ("_scale", "_zero_point")


def build(folder: Path, source: Checkpoint) -> Any:
    """The model of a folder's config.json, all parameters on the meta device. Raises WeightsUnusable.

    Experts of a mixture are linear layers of their own, as in the files.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    dtype = config.dtype or _dtype(source)
    with linear_experts(config.model_type), no_init_weights(), init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.eval()
    if get_non_linearized_moes(model):
        raise WeightsUnusable(
            f"the experts of a {config.model_type} model cannot be taken one by one, so only W8A8_FP8, which looks at "
            "weights alone, is possible"
        )
    tied = set(model.all_tied_weights_keys)
    missing = [name for name, _ in model.named_parameters() if name not in source and name not in tied]
    if missing:
        raise WeightsUnusable(
            f"the files have no tensor {missing[0]}, which transformers' {type(model).__name__} has; save the model "
            "again with save_pretrained"
        )
    return model


class Filling:
    """Fills modules of one model from its files."""

    def __init__(self, model: nn.Module, source: Checkpoint, device: torch.device) -> None:
        self._source, self._device = source, device
        self._names = {module: name for name, module in model.named_modules()}

    @contextlib.contextmanager
    def filled(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Within, the modules have their weights, and room for what quantizing finds out; behind it, nothing again."""
        every = [module for module in modules if module in self._names]
        wanted = [
            f"{self._names[module]}.{name}"
            for module in every
            for name, tensor in module._parameters.items()
            if tensor is not None and not name.endswith(_MADE_BY_QUANTIZING)
        ]
        loaded = self._source.load(name for name in wanted if name in self._source)
        for module in every:
            for name, tensor in module._parameters.items():
                if tensor is not None and tensor.is_meta:
                    value = self._value(module, name, tensor, loaded)
                    if value is not None:
                        module._parameters[name] = nn.Parameter(value, requires_grad=False)
        del loaded
        try:
            yield
        finally:
            for module in every:
                for name, tensor in module._parameters.items():
                    if tensor is not None:
                        module._parameters[name] = nn.Parameter(tensor.to("meta"), requires_grad=False)

    def tensors(self, modules: Iterable[nn.Module], layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """What the modules in these layers have become, by names in files: quantized ones as engines read them."""
        found: dict[str, torch.Tensor] = {}
        for module in modules:
            if not self._names[module].startswith(layers):
                continue
            own = {name: tensor for name, tensor in get_direct_state_dict(module).items() if tensor is not None}
            if is_module_quantized(module):
                scheme = module.quantization_scheme
                own = BaseCompressor.get_value_from_registry(scheme.format.value).compress(own, scheme)
            elif isinstance(module, CalibrationOffsetNorm):
                own = {name: (tensor.float() - 1.0).to(tensor.dtype) for name, tensor in own.items()}
            for name, tensor in own.items():
                if name in module._non_persistent_buffers_set:
                    continue
                found[f"{self._names[module]}.{name}"] = tensor
        return found

    def _value(
        self, module: nn.Module, name: str, empty: torch.Tensor, loaded: dict[str, torch.Tensor]
    ) -> torch.Tensor | None:
        full = f"{self._names[module]}.{name}"
        if name.endswith(_MADE_BY_QUANTIZING):
            return torch.zeros(empty.shape, dtype=empty.dtype, device=self._device)
        if full not in loaded:
            return None  # tied to another, and not computed with while a model is calibrated
        value = loaded[full].to(device=self._device, dtype=empty.dtype)
        # llm-compressor lets such norms multiply by their weight itself, not by one more than it.
        return (1.0 + value.float()).to(empty.dtype) if isinstance(module, CalibrationOffsetNorm) else value


def _dtype(source: Checkpoint) -> torch.dtype:
    known = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    return next((known[stored.dtype] for stored in source.tensors.values() if stored.dtype in known), torch.bfloat16)
