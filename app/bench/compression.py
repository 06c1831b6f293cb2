"""What compression takes beside llm-compressor's own `oneshot`, of memory beside what was foretold, and what it gives.

The same model, recipe and calibration samples on both sides; each side is a process of its own, imports counted.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from app.compression.quality.speed import CONCURRENCY, Served, served
from app.core.tuning_spec import Quantized

TIMEOUT_S = 3600.0
ROWS: dict[str, Quantized] = {
    "smoothquant_compression_s": "SmoothQuant-W8A8",
    "awq_compression_s": "AWQ-W4A16",
}
PEAK = "compression_peak_apart_ratio"
SPEED = f"smoothquant_serving_tokens_per_s_c{CONCURRENCY}"


def measure_compression(
    model: Path, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[float]]]:
    """(ours, the other's, ours alone) of each round. Raises RuntimeError when a side fails.

    Beside our wall times stand `oneshot`'s; beside the serving speed in int8 stands that of the original; PEAK is how
    far the memory at its peak is from what was foretold, up or down, the farthest of the precisions.
    """
    names = (*ROWS, SPEED)
    ours: dict[str, list[float]] = {name: [] for name in names}
    plain: dict[str, list[float]] = {name: [] for name in names}
    apart: list[float] = []
    for _ in range(rounds):
        farthest = 1.0
        with tempfile.TemporaryDirectory(prefix="modelunit-bench-") as scratch:
            for row, precision in ROWS.items():
                folder = Path(scratch) / row
                elapsed_s, told = _run("ours", model, precision, folder)
                ours[row].append(elapsed_s)
                ratio = told["peak_bytes"] / told["predicted_bytes"]
                farthest = max(farthest, ratio, 1 / ratio)
                plain[row].append(_run("oneshot", model, precision, folder.with_suffix(".plain"))[0])
            apart.append(farthest)
            ours[SPEED].append(_rate(served(Path(scratch) / next(iter(ROWS)), _go_on)))
        plain[SPEED].append(_rate(served(model, _go_on)))
    return ours, plain, {PEAK: apart}


def _run(side: str, model: Path, precision: str, output: Path) -> tuple[float, dict[str, float]]:
    """(seconds of its process, what it tells)."""
    command = [sys.executable, "-m", "app.bench.compression_arms", side, str(model), precision, str(output)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    elapsed_s = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{side} of {precision} failed: {done.stderr[-2000:]}")
    return elapsed_s, json.loads(done.stdout.splitlines()[-1])


def _rate(found: Served) -> float:
    if found.tokens_per_s is None:
        raise RuntimeError(f"it was not served: {found.problem}")
    return found.tokens_per_s


def _go_on(_: str) -> bool:
    return False
