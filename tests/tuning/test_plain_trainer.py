"""transformers' own Trainer, given the same rows in the same order, has the same losses."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from app.core.tuning_spec import TrainingPlan
from app.store.file_store import FileStore
from app.tuning.batches import Order, parted
from app.tuning.checkpoints import CheckpointStore
from app.tuning.loop import Work, Worker, train_here
from app.tuning.model import load
from app.tuning.reports import Report
from tests.tuning.tiny_models import RandomSamples, plan_of, write_tiny


class InOrder(Dataset[dict[str, list[int]]]):
    """Every iteration's rows, one after the other."""

    def __init__(self, plan: TrainingPlan, samples: RandomSamples) -> None:
        order = Order(plan.training_rows, plan.rows_per_iteration, plan.seed)
        self._samples, _ = parted(samples, plan.validation_rows, plan.seed)
        rows = [order.rows(iteration) for iteration in range(plan.iterations)]
        self._numbers = [number for of_one in rows for number in of_one]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> dict[str, list[int]]:
        ids, trained = self._samples[self._numbers[place]]
        labels = [int(one) if learnt else -100 for one, learnt in zip(ids, trained, strict=True)]
        return {"input_ids": ids.tolist(), "attention_mask": [1] * len(ids), "labels": labels}


def padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """To the longest of these."""
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    longest = max(len(row["input_ids"]) for row in rows)
    return {
        name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])
        for name, value in fill.items()
    }


def losses_of_trainer(plan: TrainingPlan, base: Path, samples: RandomSamples, folder: Path) -> list[float]:
    model = load(base, torch.float32)
    if plan.method == "lora":
        torch.manual_seed(plan.seed)
        config = LoraConfig(r=plan.rank, lora_alpha=plan.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=plan.iterations,
        per_device_train_batch_size=plan.rows_per_iteration,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=plan.schedule,
        warmup_steps=plan.warmup_iterations,
        weight_decay=plan.weight_decay,
        logging_steps=1,
        train_sampling_strategy="sequential",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=InOrder(plan, samples),
        data_collator=padded,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_are_those_of_the_plain_trainer(tmp_path: Path, method: str, schedule: str):
    base = write_tiny(tmp_path / "base")
    plan = plan_of(method=method, schedule=schedule, learning_rate=3e-3, iterations=12, warmup_iterations=3)
    samples = RandomSamples(plan.rows)
    reports: list[Report] = []
    checkpoints = CheckpointStore(FileStore(tmp_path / "store"), "checkpoints/")

    def tell(report: Report) -> bool:
        reports.append(report)
        return False

    train_here(Work(plan, base, samples, checkpoints), Worker(), tell)
    plain = losses_of_trainer(plan, base, samples, tmp_path / "trainer")
    assert len(plain) == plan.iterations
    assert [report.loss for report in reports] == pytest.approx(plain, rel=1e-4)
    assert reports[-1].loss < 0.995 * reports[0].loss
