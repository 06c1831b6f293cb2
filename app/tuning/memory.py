"""How many tokens go through the model at once: foretold from its shape, so that it is the same after a crash."""

from dataclasses import dataclass
from typing import Any

import psutil
import torch

from app.core.tuning_spec import TrainingPlan

MOST_TOKENS = {"cpu": 2048, "cuda": 16384}
"""More make nothing faster: dense layers are at their best by then."""
USABLE = {"cpu": 0.5, "cuda": 0.85}
"""Of the machine's memory, which others use too; of the card's."""
_TRAINED_BYTES = 16
"""For each trained value: master, gradient and two moments in fp32."""


@dataclass(frozen=True)
class Room:
    """Tokens of one pass, and whether layers must be computed again on the way back to make room for them."""

    tokens: int
    spare_memory: bool


def room_for(model: Any, plan: TrainingPlan, device: torch.device) -> Room:
    """The most tokens that fit, at least those of the longest sample that there may be."""
    memory = psutil.virtual_memory().total
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    value_bytes = next(model.parameters()).element_size()
    values = sum(parameter.numel() for parameter in model.parameters())
    merged = plan.method == "lora" and not plan.dropout and value_bytes == 4  # those layers are there twice
    return room(
        model.config.get_text_config(),
        value_bytes=value_bytes,
        values=2 * values if merged else values,
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        longest=plan.max_length,
        free_bytes=int(memory * USABLE.get(device.type, 0.5)),
        most_tokens=MOST_TOKENS.get(device.type, 2048),
    )


def room(
    config: Any, value_bytes: int, values: int, trained: int, longest: int, free_bytes: int, most_tokens: int
) -> Room:
    """`values`: of the model, of which so many are `trained`; `longest`: tokens of a sample."""
    left = free_bytes - values * value_bytes - trained * _TRAINED_BYTES
    of_layer = _layer_bytes(config, value_bytes)
    of_logits = 3 * config.vocab_size * value_bytes  # themselves, their gradient, and a piece of it in fp32
    kept = config.num_hidden_layers * of_layer + of_logits
    if left >= longest * kept:
        return Room(min(most_tokens, left // kept), spare_memory=False)
    spared = config.num_hidden_layers * config.hidden_size * value_bytes + of_layer + of_logits
    return Room(max(1, min(most_tokens, left // spared)), spare_memory=True)


def _layer_bytes(config: Any, value_bytes: int) -> int:
    """What one token leaves in a layer for the way back.

    Twelve times the width around attention and the two norms (of which four in fp32), five times the inner width.
    """
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(config.hidden_size * (8 * value_bytes + 4 * 4) + 5 * inner * value_bytes)
