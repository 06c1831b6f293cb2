"""A small model that has learnt something, and versions of it that are quantized by hand, well or badly."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from app.compression.quality import held_out
from tests.weights.quantized_folders import compressed
from tests.weights.sound_folders import FAMILIES, SIZES, edit_json, write_tokenizer

STEPS, ROWS, LENGTH = 150, 8, 96
WEIGHTS = "model.safetensors"


def write_trained(folder: Path) -> None:
    """A llama of two layers that has read the held-out texts, so that it matters what becomes of its weights."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**{**SIZES, **FAMILIES["llama-64"][2]})
    model = transformers.LlamaForCausalLM(config)
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer("".join(held_out.texts()), add_special_tokens=False)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        starts = torch.randint(0, len(ids) - LENGTH, (ROWS,))
        batch = torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.to(torch.bfloat16).save_pretrained(folder)


def write_int8(source: Path, target: Path, change: Callable[[str, torch.Tensor], torch.Tensor] | None = None) -> None:
    """Weights in int8 with one scale per row, inputs in int8 with one scale per token, as compressed-tensors lays them.

    `change` may spoil scales, by the name of the layer.
    """
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(target / WEIGHTS)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight = tensors.pop(name).float()
        scale = (weight.abs().amax(dim=1, keepdim=True) / 127.5).to(torch.bfloat16)
        layer = name.removesuffix(".weight")
        tensors[name] = (weight / scale.float()).round().clamp(-128, 127).to(torch.int8)
        tensors[f"{layer}.weight_scale"] = change(layer, scale) if change else scale
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    scheme = compressed(
        {"type": "int", "num_bits": 8, "strategy": "channel"},
        {"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": True},
        "int-quantized",
    )
    edit_json(target / "config.json", lambda config: config.update(quantization_config=scheme))
