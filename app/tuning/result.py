"""From a checkpoint to a model's folder: weights in the base's own precision, the adapter, the curves, an answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboardX import SummaryWriter
from transformers import AutoTokenizer, GenerationConfig

from app.core.tuning_spec import TrainingPlan
from app.tuning.adapters import Adapters
from app.tuning.loop import STATE
from app.tuning.model import load
from app.tuning.reports import Report

SHARD = "5GB"
ANSWER_TOKENS = 64


def write_model(plan: TrainingPlan, base: Path, checkpoint: Path | None, output: Path, adapter: Path) -> Any:
    """Put weights and config.json into `output`, what LoRA has learnt into `adapter` too; returns the model.

    No checkpoint: the base as it is. Raises KeyError when the checkpoint is another model's.
    """
    model = load(base)
    model.generation_config = GenerationConfig()  # the base's own is copied, and saving would judge it
    if checkpoint is not None:
        state = load_file(checkpoint / STATE)
        learnt = {name.removeprefix("weight/"): state[name] for name in state if name.startswith("weight/")}
        del state
        if plan.method == "lora":
            adapters = Adapters(model, plan)
            _put(model, learnt)
            adapters.peft_model.save_pretrained(adapter)
            adapters.into_weights()
            model = adapters.peft_model.unload()
        else:
            _put(model, learnt)
    model.save_pretrained(output, max_shard_size=SHARD)
    (output / "generation_config.json").unlink(missing_ok=True)
    return model.eval()


def _put(model: Any, learnt: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(learnt.pop(name))
    if learnt:
        raise KeyError(next(iter(learnt)))


def write_tensorboard(reports: Sequence[Report], folder: Path) -> None:
    """One file of events: the curves over all attempts, each point at the time it had."""
    with SummaryWriter(str(folder), write_to_disk=True) as writer:
        for report in reports:
            curves = {
                "lm loss": report.loss,
                "learning rate": report.learning_rate,
                "grad norm": report.gradient_norm,
                "tokens per second per card": report.tokens_per_s_per_card,
                "validation loss": report.validation_loss,
            }
            for name, value in curves.items():
                if value is not None:
                    # TensorBoard would replace spaces itself, and say so each time.
                    writer.add_scalar(name.replace(" ", "_"), value, report.iteration, walltime=report.at_s)


def answer(model: Any, folder: Path, question: Sequence[int]) -> str:
    """What the model says, greedily and shortly, to a conversation's tokens up to an assistant's turn."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ids = torch.tensor([list(question)], device=model.device)
    said = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    text: str = tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
    return text
