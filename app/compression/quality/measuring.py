"""The quality card of a version: one model after the other, never both in memory."""

import gc
import math
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from app.compression.quality import held_out
from app.compression.quality.model_folder import longest_of, vocabulary_of, weights_bytes
from app.compression.quality.scoring import Kept, Scorer, divergence, nats
from app.compression.quality.speed import CONCURRENCY, Served, served
from app.compression.quality.stopping import Tell, go_on
from app.compression.quality.tokens import Ids, Reader
from app.core.compression_memory import FP32_UP_TO_BYTES
from app.core.quality import Probe, QualityCard

ANSWER_TOKENS = 32
"""Of each question, at most."""
KEPT_BYTES = 1 << 30
"""Of log-probabilities on disk; where the held-out text has more, they are of positions spread evenly over it."""
_LIBRARIES = ("torch", "transformers", "compressed-tensors")


@dataclass(frozen=True)
class Sample:
    """How much is measured; None: everything there is. Cards by other samples are not comparable."""

    texts: int | None = None
    questions: int | None = None
    answer_tokens: int = ANSWER_TOKENS
    items: int | None = None
    """Of each probe."""


@dataclass(frozen=True)
class _HeldOut:
    """What both models read, as tokens."""

    windows: list[Ids]
    kept: list[list[int]]
    """Of each window the positions whose distributions are compared."""
    chats: list[Ids]
    probes: dict[str, list[tuple[Ids, list[Ids]]]]

    @property
    def tokens(self) -> int:
        """That are predicted."""
        return sum(len(window) - 1 for window in self.windows)


def measure(original: Path, quantized: Path, tell: Tell, speed: bool = True, sample: Sample = Sample()) -> QualityCard:
    """The card of `quantized`, a folder that llm-compressor wrote, beside `original`, a folder it was made of.

    `tell` hears what is done now, several times a minute; when it returns True, Stopped is raised. `speed` False leaves
    the engine out, and with it load times and serving speed; an engine that does not serve leaves them out too, with
    the reason in `measured_with`. Holds one model at a time in memory, plain or quantized, in fp32 up to
    FP32_UP_TO_BYTES of weights, and up to KEPT_BYTES on disk, beside `quantized`. Raises OSError, ValueError for
    folders that are no such models.
    """
    held = _held_out(original, sample)
    size_before, size_after = weights_bytes(original), weights_bytes(quantized)
    dtype = torch.float32 if size_before <= FP32_UP_TO_BYTES else torch.bfloat16
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="measuring-", dir=quantized.parent) as scratch:
        kept = Kept(Path(scratch) / "log-probabilities")
        with _scorer(original, dtype, device, tell, "the original") as (scorer, say):
            costs_before: list[torch.Tensor] = []
            kept.write(_scored(scorer, held, say, costs_before))
            ends = Reader(original, None).ends
            answers = []
            for number, chat in enumerate(held.chats, 1):
                say(f"answer {number} of {len(held.chats)}")
                answers.append(scorer.answer(chat, sample.answer_tokens, ends))
            right_before = _right(scorer, held, say)
            vocabulary = scorer.logits(held.windows[0][:2]).shape[1]
        with _scorer(quantized, dtype, device, tell, "the compressed version") as (scorer, say):
            costs_after: list[torch.Tensor] = []
            shapes = [(len(positions), vocabulary) for positions in held.kept]
            read = kept.read(shapes)
            found = [
                divergence(before, after)
                for before, after in zip(read, _scored(scorer, held, say, costs_after), strict=True)
            ]
            agreed = 0
            for number, (chat, said) in enumerate(zip(held.chats, answers, strict=True), 1):
                say(f"answer {number} of {len(answers)}")
                agreed += scorer.agreements(chat, said)
            right_after = _right(scorer, held, say)
    divergences = torch.cat(found).numpy()
    greedy_tokens = sum(map(len, answers))
    before, after = _speeds(original, quantized, tell) if speed else (Served(), Served())
    return QualityCard(
        perplexity_before=_perplexity(costs_before),
        perplexity_after=_perplexity(costs_after),
        kl_mean=float(divergences.mean(dtype=np.float64)),
        kl_p99=float(np.percentile(divergences, 99)),
        greedy_agreement=agreed / greedy_tokens if greedy_tokens else 1.0,
        greedy_tokens=greedy_tokens,
        probes=tuple(
            Probe(name=name, before=right_before[name], after=right_after[name], of=len(items))
            for name, items in held.probes.items()
        ),
        size_before_bytes=size_before,
        size_after_bytes=size_after,
        load_s_before=before.load_s,
        load_s_after=after.load_s,
        tokens_per_s_before=before.tokens_per_s,
        tokens_per_s_after=after.tokens_per_s,
        concurrency=CONCURRENCY if speed else None,
        where=_machine(device),
        held_out_tokens=held.tokens,
        held_out_sha256=held_out.sha256(),
        measured_with=_measured_with(dtype, len(divergences), before, after),
    )


def _held_out(folder: Path, sample: Sample) -> _HeldOut:
    """Raises ValueError for a tokenizer that makes nothing of it."""
    reader = Reader(folder, longest_of(folder))
    windows = reader.windows(held_out.texts()[: sample.texts])
    if not windows:
        raise ValueError("the tokenizer makes no tokens of the held-out texts")
    vocabulary = vocabulary_of(folder)
    total = sum(len(window) - 1 for window in windows)
    every = max(1, math.ceil(total * vocabulary * 4 / KEPT_BYTES))
    kept, begins = [], 0
    for window in windows:
        kept.append([at for at in range(len(window) - 1) if (begins + at) % every == 0])
        begins += len(window) - 1
    tasks = {task.name: reader.options(task)[: sample.items] for task in held_out.tasks()}
    chats = reader.chats(held_out.questions()[: sample.questions], sample.answer_tokens)
    return _HeldOut(windows, kept, chats, {name: items for name, items in tasks.items() if items})


@contextmanager
def _scorer(
    folder: Path, dtype: torch.dtype, device: torch.device, tell: Tell, what: str
) -> Iterator[tuple[Scorer, "partial[None]"]]:
    """A model, in memory as long as the block runs, and how to say what is done with it."""
    go_on(tell, f"loading {what} to be measured")
    scorer = Scorer(folder, dtype, device)
    try:
        yield scorer, partial(_say, tell, what)
    finally:
        scorer.close()
        gc.collect()


def _say(tell: Tell, what: str, part: str) -> None:
    go_on(tell, f"measuring {what}: {part}")


def _scored(scorer: Scorer, held: _HeldOut, say: "partial[None]", costs: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Log-probabilities at the kept positions of each window; what its tokens cost goes into `costs`."""
    for number, (window, positions) in enumerate(zip(held.windows, held.kept, strict=True), 1):
        say(f"text {number} of {len(held.windows)}")
        found = scorer.log_probabilities(window[:-1])
        costs.append(nats(found, window[1:]).cpu())
        yield found[positions].cpu()


def _right(scorer: Scorer, held: _HeldOut, say: "partial[None]") -> dict[str, int]:
    right = {}
    for name, items in held.probes.items():
        say(f"probe {name}")
        right[name] = sum(scorer.chooses_first(begun, options) for begun, options in items)
    return right


def _speeds(original: Path, quantized: Path, tell: Tell) -> tuple[Served, Served]:
    before = served(original, tell, "measuring the serving speed of the original")
    return before, served(quantized, tell, "measuring the serving speed of the compressed version")


def _perplexity(costs: Sequence[torch.Tensor]) -> float:
    return math.exp(float(torch.cat(list(costs)).double().mean()))


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {torch.cuda.device_count()} there"
    return f"{_cpu()}, {torch.get_num_threads()} threads"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _measured_with(dtype: torch.dtype, positions: int, before: Served, after: Served) -> dict[str, str]:
    told = {"dtype": str(dtype).removeprefix("torch."), "kl_positions": str(positions)}
    told |= {library: version(library) for library in _LIBRARIES}
    for which, found in (("before", before), ("after", after)):
        if found.problem:
            told[f"not_served_{which}"] = found.problem
    return told
