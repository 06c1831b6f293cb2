"""LoRA by our loop and by transformers' Trainer, on the same model, rows and machine.

`python -m app.bench.tuning_arms ARM MODEL` prints tokens per second, padding not counted, and losses as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from app.core.tuning_spec import TrainingPlan
from app.store.file_store import FileStore
from app.tuning.batches import Ids, Order, Trained, parted
from app.tuning.checkpoints import CheckpointStore
from app.tuning.crew import keep_freed_memory
from app.tuning.loop import Work, Worker, train_here
from app.tuning.model import load
from app.tuning.reports import Report

ROWS, LONGEST = 32, 512
ITERATIONS = 2
"""The first of them, as the first step of the Trainer, warms up and is not counted."""
MEDIAN_TOKENS, SPREAD = 120.0, 0.8
"""Of a log-normal distribution, as lengths of conversations are distributed."""
TRAINED_SHARE = 0.6

TRAINERS: Mapping[str, Mapping[str, Any]] = {
    # Trainer as it comes: eight rows at once in the checkpoint's precision, all as long as the longest there may be
    # (its own collator does not pad labels).
    "defaults": {"pad_to": LONGEST},
    # The same with a collator that pads to the longest of the eight.
    "defaults-longest": {},
    "tuned": {"bf16": True, "gradient_accumulation_steps": 4, "train_sampling_strategy": "group_by_length"},
    # What is faster than bf16 where the CPU has no AMX.
    "tuned-fp32": {
        "dtype": torch.float32, "gradient_accumulation_steps": 4, "train_sampling_strategy": "group_by_length",
    },
}  # fmt: skip


class Conversations:
    """Random tokens in as many rows as are trained on, each once."""

    digest = "conversations"

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        lengths = np.exp(random.normal(np.log(MEDIAN_TOKENS), SPREAD, ROWS * ITERATIONS)).astype(int).clip(16, LONGEST)
        self._rows = [
            (random.integers(0, 40_000, length, dtype=np.int32), np.arange(length) >= length * (1 - TRAINED_SHARE))
            for length in lengths
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[Ids, Trained]:
        return self._rows[number]


def tuning_plan(iterations: int = ITERATIONS) -> TrainingPlan:
    """The same for every arm, as far as the arm has a say."""
    return TrainingPlan(
        method="lora", rows=len(Conversations()), validation_rows=0, iterations=iterations, epochs=1,
        learning_rate=2e-4, schedule="linear", warmup_iterations=0, weight_decay=0, rank=16, alpha=32, dropout=0,
        targets="all-linear", max_length=LONGEST, packing=True, seed=1, checkpoint_every=1000, precision="auto",
    )  # fmt: skip


def ours(model: Path) -> dict[str, Any]:
    """The loop of a worker, as jobs run it."""
    keep_freed_memory()
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="modelunit-bench-") as folder:
        checkpoints = CheckpointStore(FileStore(Path(folder)), "checkpoints/")
        train_here(Work(tuning_plan(), model, Conversations(), checkpoints), Worker(), _collected(reports))
    tokens, elapsed_s = (sum(getattr(r, name) for r in reports[1:]) for name in ("tokens", "elapsed_s"))
    return {"tokens_per_s": tokens / elapsed_s, "losses": [report.loss for report in reports]}


def _collected(reports: list[Report]) -> Any:
    def tell(report: Report) -> bool:
        reports.append(report)
        return False

    return tell


def trainer(arm: str, folder: Path) -> dict[str, Any]:
    """transformers' Trainer and peft's LoRA, on the same rows."""
    options = dict(TRAINERS[arm])
    plan = tuning_plan()
    model = load(folder, options.pop("dtype", "auto"))
    config = LoraConfig(r=plan.rank, lora_alpha=plan.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pad_to = options.pop("pad_to", None)
    padding = {"padding": "max_length", "max_length": pad_to} if pad_to else {}
    samples, _ = parted(Conversations(), 0, plan.seed)
    order = Order(len(samples), ROWS, plan.seed)
    rows = [samples[number] for iteration in range(plan.iterations) for number in order.rows(iteration)]
    watch, collator = _Watch(), _Counting(DataCollatorForSeq2Seq(tokenizer, **padding))
    with tempfile.TemporaryDirectory(prefix="modelunit-bench-") as output:
        arguments = TrainingArguments(
            output_dir=output,
            learning_rate=plan.learning_rate,
            num_train_epochs=1,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            use_cpu=not torch.cuda.is_available(),  # or it refuses bf16
            **{"train_sampling_strategy": "sequential"} | options,
        )
        running = Trainer(
            model,
            arguments,
            train_dataset=[_labelled(row) for row in rows],
            data_collator=collator,
            callbacks=[watch],
        )
        running.train()
    losses = [entry["loss"] for entry in running.state.log_history if "loss" in entry]
    tokens = sum(collator.tokens[arguments.gradient_accumulation_steps :])
    return {"tokens_per_s": tokens / (watch.ended[-1] - watch.ended[0]), "losses": losses}


def _labelled(row: tuple[Ids, Trained]) -> dict[str, list[int]]:
    ids, trained = row
    return {
        "input_ids": ids.tolist(),
        "attention_mask": [1] * len(ids),
        "labels": np.where(trained, ids, -100).tolist(),
    }


class _Counting:
    """A collator that counts the tokens of each batch which are no padding."""

    def __init__(self, collator: Any) -> None:
        self._collator = collator
        self.tokens: list[int] = []

    def __call__(self, rows: list[dict[str, list[int]]]) -> Any:
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self._collator(rows)


class _Watch(TrainerCallback):  # type: ignore[misc] # transformers counts as Any
    """When each step ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.monotonic())


def main() -> None:
    """Run one arm."""
    arm, folder = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(ours(folder) if arm == "ours" else trainer(arm, folder)))


if __name__ == "__main__":
    main()
