"""Quantized forms of a sound weight folder: by their shapes alone, or as compressed-tensors writes them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.weights.sound_folders import edit_json


def compressed(weights: dict[str, Any], activations: dict[str, Any] | None, form: str) -> dict[str, Any]:
    """quantization_config as llm-compressor writes it."""
    group = {
        "weights": {"symmetric": True, "dynamic": False, **weights},
        "input_activations": activations,
        "output_activations": None,
        "targets": ["Linear"],
    }
    return {
        "config_groups": {"group_0": group},
        "format": form,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


INT8 = compressed(
    {"type": "int", "num_bits": 8, "strategy": "channel"},
    {"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True},
    "int-quantized",
)
PACKED = compressed({"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32}, None, "pack-quantized")
W4A8 = compressed(
    {"type": "int", "num_bits": 4, "strategy": "channel"},
    {"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True},
    "int-quantized",
)
FLOAT8 = compressed(
    {"type": "float", "num_bits": 8, "strategy": "channel"},
    {"type": "float", "num_bits": 8, "strategy": "token", "dynamic": True},
    "float-quantized",
)
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [48, 48]}

QUANTIZED: dict[str, tuple[str, dict[str, Any]]] = {
    # precision, quantization_config
    "int8": ("SmoothQuant-W8A8", INT8),
    "packed": ("AWQ-W4A16", PACKED),
    "w4a8": ("W4A8", W4A8),
    "float8": ("W8A8_FP8", FLOAT8),
    "awq": ("AWQ-W4A16", AWQ),
    "fp8": ("W8A8_FP8", FP8_BLOCKS),
}


def compress(folder: Path, preset: str) -> None:
    """Have compressed-tensors rewrite a sound folder in one of its own schemes; all scales are one."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme

    scheme = preset_name_to_scheme(preset, ["Linear"])
    if scheme.weights.group_size:
        scheme.weights.group_size = 32
    if scheme.weights.block_structure:
        scheme.weights.block_structure = [48, 32]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    for name, tensor in model.state_dict().items():
        if name.endswith(("_scale", "_zero_point")):
            tensor.fill_(float(name.endswith("_scale")))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def quantize(folder: Path, form: str) -> None:
    """Give the linear layers of a sound folder the shapes and dtypes of this form; the values are zeros."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors.pop(name).shape
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.{last}": tensor for last, tensor in _quantized(form, rows, columns).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    edit_json(folder / "config.json", lambda config: config.update(quantization_config=QUANTIZED[form][1]))


def _quantized(form: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
    def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float32).to(dtype)

    match form:
        case "int8" | "w4a8":
            return {"weight": zeros(torch.int8, rows, columns), "weight_scale": zeros(torch.bfloat16, rows, 1)}
        case "float8":
            weight = zeros(torch.float8_e4m3fn, rows, columns)
            return {"weight": weight, "weight_scale": zeros(torch.bfloat16, rows, 1)}
        case "packed":
            return {
                "weight_packed": zeros(torch.int32, rows, columns // 8),
                "weight_scale": zeros(torch.bfloat16, rows, columns // 32),
                "weight_shape": torch.tensor([rows, columns]),
            }
        case "awq":
            return {
                "qweight": zeros(torch.int32, columns, rows // 8),
                "qzeros": zeros(torch.int32, columns // 32, rows // 8),
                "scales": zeros(torch.float16, columns // 32, rows),
            }
    blocks = (-(-rows // 48), -(-columns // 48))
    return {
        "weight": zeros(torch.float8_e4m3fn, rows, columns),
        "weight_scale_inv": zeros(torch.float32, *blocks),
    }
