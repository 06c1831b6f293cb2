"""What a model says to held-out tokens: log-probabilities, its own answers, its choices among options."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.compression.mixtures import linear_experts
from app.compression.quality.tokens import Ids

MOST_NATS = 50.0
"""What one token may cost at most: a model that gives it no chance at all, or no number, does not make cards infinite.
"""


class Scorer:
    """A model from a local folder, plain or quantized as llm-compressor writes it; no code of the folder runs.

    A quantized one computes with the values that its weights have after quantization, and quantizes what its layers
    take in as its scheme says, all of it in `dtype`.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        local = {"local_files_only": True, "trust_remote_code": False}
        with linear_experts(AutoConfig.from_pretrained(folder, **local).model_type):
            loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, low_cpu_mem_usage=True, **local)
        self._device = device
        self._model: Any = loaded.to(device).eval()

    def logits(self, ids: Ids) -> torch.Tensor:
        """(tokens, vocabulary), in fp32: after each token, what comes next."""
        with torch.inference_mode():
            found: torch.Tensor = self._model(input_ids=self._batch(ids), use_cache=False).logits[0]
        return found.float()

    def log_probabilities(self, ids: Ids) -> torch.Tensor:
        """The logits, normalized."""
        return torch.log_softmax(self.logits(ids), dim=-1)

    def answer(self, prompt: Ids, tokens: int, ends: set[int]) -> Ids:
        """The likeliest token, and so on, `tokens` times or up to one that ends the answer."""
        said: Ids = []
        given, past = prompt, None
        while len(said) < tokens and not (said and said[-1] in ends):
            with torch.inference_mode():
                output = self._model(input_ids=self._batch(given), past_key_values=past, use_cache=True)
            said.append(int(output.logits[0, -1].float().argmax()))
            given, past = said[-1:], output.past_key_values
        return said

    def agreements(self, prompt: Ids, said: Ids) -> int:
        """How many tokens of another model's answer this one would have chosen as well, each after those before it."""
        likeliest = self.logits(prompt + said)[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
        return sum(own == other for own, other in zip(likeliest, said, strict=True))

    def chooses_first(self, begun: Ids, options: Sequence[Ids]) -> bool:
        """Whether the first option is likelier, per token, than each of the others."""
        scores = []
        for option in options:
            costs = nats(self.log_probabilities(begun + option)[len(begun) - 1 : -1], option)
            scores.append(float(costs.mean()))
        return scores[0] < min(scores[1:])

    def close(self) -> None:
        """Let the weights go."""
        del self._model

    def _batch(self, ids: Ids) -> torch.Tensor:
        return torch.tensor([ids], device=self._device)


def nats(log_probabilities: torch.Tensor, tokens: Ids) -> torch.Tensor:
    """What each token costs where `log_probabilities` are those before it; at most MOST_NATS."""
    wanted = torch.tensor(tokens, device=log_probabilities.device)
    costs = -log_probabilities.gather(1, wanted[:, None])[:, 0]
    return costs.nan_to_num(nan=MOST_NATS, posinf=MOST_NATS).clamp(max=MOST_NATS)


def divergence(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(before || after) of each row of log-probabilities, in nats; at most MOST_NATS."""
    parts = before.exp() * (before - after.clamp(min=-2 * MOST_NATS))
    parts = parts.masked_fill(before == -torch.inf, 0.0)
    return parts.sum(dim=-1).nan_to_num(nan=MOST_NATS, posinf=MOST_NATS).clamp(0.0, MOST_NATS)


class Kept:
    """Log-probabilities of some positions, on disk: two models need not be in memory at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, parts: Iterator[torch.Tensor]) -> None:
        """All that comes, one after the other."""
        with self._path.open("wb") as file:
            for part in parts:
                file.write(part.to("cpu", torch.float32).contiguous().numpy().tobytes())

    def read(self, shapes: Sequence[tuple[int, int]]) -> Iterator[torch.Tensor]:
        """The same again, by their shapes."""
        with self._path.open("rb") as file:
            for rows, columns in shapes:
                values = bytearray(rows * columns * 4)
                if file.readinto(values) != len(values):
                    raise OSError("log-probabilities that were kept are gone")
                yield torch.frombuffer(values, dtype=torch.float32).reshape(rows, columns)
