"""The figures of a card once more, in another way: plain loops over transformers models, and numpy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file


def plain_model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def model_by_hand(original: Path, quantized: Path) -> Any:
    """The int8 version as a plain model: its weights multiplied out, what its layers take in rounded by a hook."""
    model = plain_model(original)
    tensors = load_file(quantized / "model.safetensors")
    for name, module in model.named_modules():
        if f"{name}.weight_scale" in tensors:
            scale = tensors[f"{name}.weight_scale"].float()
            module.weight.data = tensors[f"{name}.weight"].float() * scale
            module.register_forward_pre_hook(lambda _, inputs: (_rounded(inputs[0]),))
    return model


def _rounded(values: torch.Tensor) -> torch.Tensor:
    scale = values.abs().amax(dim=-1, keepdim=True) / 127.5
    return (values / scale.clamp(min=1e-12)).round().clamp(-128, 127) * scale


def windows(folder: Path, texts: Sequence[str], longest: int) -> list[list[int]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    cut = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        while ids:
            cut.append(ids[:longest])
            ids = ids[longest:]
    return [ids for ids in cut if len(ids) > 1]


@torch.no_grad()
def perplexity(model: Any, pieces: Sequence[list[int]]) -> float:
    """By the losses that transformers itself computes."""
    total, tokens = 0.0, 0
    for ids in pieces:
        batch = torch.tensor([ids])
        total += float(model(input_ids=batch, labels=batch).loss) * (len(ids) - 1)
        tokens += len(ids) - 1
    return float(np.exp(total / tokens))


@torch.no_grad()
def divergences(before: Any, after: Any, pieces: Sequence[list[int]]) -> np.ndarray[Any, Any]:
    """Both models side by side, in fp64."""
    found = []
    for ids in pieces:
        p, q = (_softmax(model(input_ids=torch.tensor([ids[:-1]])).logits[0].numpy()) for model in (before, after))
        found.append((p * np.log(p / q)).sum(axis=1))
    return np.concatenate(found)


def _softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: np.ndarray[Any, Any] = exponents / exponents.sum(axis=1, keepdims=True)
    return result


@torch.no_grad()
def agreement(before: Any, after: Any, folder: Path, questions: Sequence[str], tokens: int) -> tuple[int, int]:
    """(alike, all): the original answers by transformers' own loop, and each token is asked of the other alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    alike = count = 0
    for question in questions:
        messages = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        before.generation_config = transformers.GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id
        )
        whole = before.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=tokens, do_sample=False)
        for at in range(asked.shape[1], whole.shape[1]):
            alike += int(after(input_ids=whole[:, :at]).logits[0, -1].argmax()) == int(whole[0, at])
            count += 1
    return alike, count
