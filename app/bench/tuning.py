"""How fast LoRA is tuned, beside transformers' Trainer as it comes and as those who know it set it up."""

import json
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 1200.0
ROW, ROW_TUNED = "finetune_lora_tokens_per_s", "finetune_lora_tokens_per_s_vs_tuned"


def measure_tuning(model: Path, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """(ours, the Trainer's): real tokens per second of each round. Raises RuntimeError when an arm fails."""
    ours: dict[str, list[float]] = {ROW: [], ROW_TUNED: []}
    plain: dict[str, list[float]] = {ROW: [], ROW_TUNED: []}
    for _ in range(rounds):
        rate = _run("ours", model)
        for row, arm in ((ROW, "defaults"), (ROW_TUNED, "tuned")):
            ours[row].append(rate)
            plain[row].append(_run(arm, model))
    return ours, plain


def _run(arm: str, model: Path) -> float:
    """A process for each, so that none finds the memory as another has left it."""
    command = [sys.executable, "-m", "app.bench.tuning_arms", arm, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"arm {arm} of fine-tuning failed: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["tokens_per_s"])
