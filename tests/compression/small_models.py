"""Tiny models, recipes for them, and samples of random tokens."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from app.compression.checkpoint import Checkpoint
from app.compression.quantizing import quantize
from app.core.compression_spec import CompressionWish
from app.core.job_specs import CompressionProgress
from app.core.recipe import Recipe, choose_recipe, linear_layers
from tests.weights.sound_folders import SIZES, write_tokenizer

WHOLE: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
}  # fmt: skip
"""All widths are multiples of 128."""
LENGTH = 48


def write_llama(folder: Path, **differs: object) -> Path:
    """With outliers in some channels, as real models have them."""
    torch.manual_seed(0)
    config = LlamaConfig(**(SIZES | WHOLE | {"initializer_range": 0.1} | differs))
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight[:4] *= 8
            layer.post_attention_layernorm.weight[4:8] *= 6
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def random_samples(count: int, length: int = LENGTH) -> list[list[int]]:
    torch.manual_seed(1)
    return torch.randint(0, 250, (count, length)).tolist()


def recipe_for(folder: Path, precision: str, samples: int = 6, length: int = LENGTH, **wish: Any) -> Recipe:
    fields = {"precision": precision, "calibration_samples": samples, "calibration_length": length} | wish
    return choose_recipe(CompressionWish.model_validate(fields), linear_layers(Checkpoint(folder).shapes), ())


def run(source: Path, output: Path, precision: str, samples: int = 6, **wish: Any) -> list[CompressionProgress]:
    """Quantize; what was told."""
    told: list[CompressionProgress] = []

    def tell(progress: CompressionProgress) -> bool:
        told.append(progress)
        return False

    recipe = recipe_for(source, precision, samples, **wish)
    quantize(source, output, recipe, random_samples(samples) if recipe.needs_calibration else [], tell)
    return told


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return found


def logits(folder: Path, samples: list[list[int]]) -> torch.Tensor:
    """Of a model as transformers loads it, quantized or not, in float32."""
    from app.compression.quality.scoring import Scorer

    scorer = Scorer(folder, torch.bfloat16, torch.device("cpu"))
    return torch.stack([scorer.logits(sample) for sample in samples])


def divergence(original: Path, quantized: Path) -> float:
    """Mean KL of next-token distributions over random samples, in nats."""
    samples = random_samples(4)
    before, after = (torch.log_softmax(logits(folder, samples), -1) for folder in (original, quantized))
    return float((before.exp() * (before - after)).sum(-1).mean())
