"""A tiny model, and conversations of random tokens for it."""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.core.tuning_spec import TrainingPlan
from app.tuning.batches import Ids, Trained

VOCABULARY = 128


class RandomSamples:
    """As a file of samples gives them."""

    def __init__(self, rows: int, longest: int = 40, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.digest = f"{rows}-{longest}-{seed}"
        self._samples = []
        for _ in range(rows):
            length = int(random.integers(5, longest))
            ids = random.integers(0, VOCABULARY // 4, length, dtype=np.int32)
            self._samples.append((ids, np.arange(length) >= length // 3))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[Ids, Trained]:
        return self._samples[number]


def write_tiny(folder: Path, **differs: object) -> Path:
    """Two layers, width 64; fp32, so that what is compared is not what bf16 has rounded away."""
    torch.manual_seed(0)
    fields = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 1,
        "initializer_range": 0.1,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**(fields | differs))).save_pretrained(folder)
    return folder


def plan_of(**differs: object) -> TrainingPlan:
    fields = {
        "method": "lora", "rows": 60, "validation_rows": 0, "iterations": 6, "epochs": 1.0, "learning_rate": 1e-2,
        "schedule": "cosine", "warmup_iterations": 1, "weight_decay": 0.0, "rank": 4, "alpha": 8.0, "dropout": 0.0,
        "targets": "all-linear", "max_length": 64, "packing": True, "seed": 7, "checkpoint_every": 2,
        "precision": "fp32", "rows_per_iteration": 8,
    }  # fmt: skip
    return TrainingPlan.model_validate(fields | differs)
