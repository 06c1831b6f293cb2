"""python -m jobs.quantize, with a quality that is played and a verdict that is always good."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jobs.quantize
from app.core.job_specs import JobOutcome
from app.core.quality import QualityCard
from jobs.workspace import main

CARD = QualityCard(
    perplexity_before=20.0, perplexity_after=20.4, kl_mean=0.01, kl_p99=0.1, greedy_agreement=0.97, greedy_tokens=256,
    size_before_bytes=2, size_after_bytes=1, held_out_tokens=1000, held_out_sha256="0" * 64,
)  # fmt: skip


def measure(original: Path, quantized: Path, tell: Callable[[str], bool]) -> QualityCard:
    return CARD


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    jobs.quantize.verdict_on = lambda source, workspace: JobOutcome(ok=True)
    main(partial(jobs.quantize.compress, measure=measure), jobs.quantize.read_task)
