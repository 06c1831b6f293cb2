"""Load by vLLM's own benchmark client, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPTS_PER_LEVEL = {1: 8, 8: 24, 16: 48}
"""Requests by concurrency; greedy, ignore_eos."""
TIMEOUT_S = 900
INPUT_TOKENS = OUTPUT_TOKENS = 128

# One process for all levels: importing the client takes longer than a level.
_CLIENT = """
import argparse, asyncio, sys
from vllm.benchmarks.serve import add_cli_args, main_async
parser = argparse.ArgumentParser()
add_cli_args(parser)
for line in sys.stdin.read().splitlines():
    asyncio.run(main_async(parser.parse_args(line.split("\\t"))))
"""


@dataclass(frozen=True)
class Server:
    """What to put load on."""

    base_url: str
    model: str
    key: str
    tokenizer: Path


Figures = dict[str, float]
"""Row name without its concurrency -> value."""


def measure(server: Server, levels: tuple[int, ...]) -> dict[int, Figures]:
    """Figures by concurrency. Raises RuntimeError when a request failed or the client did."""
    with tempfile.TemporaryDirectory() as folder:
        runs = ["\t".join(_arguments(server, level, Path(folder) / f"{level}.json")) for level in levels]
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT],
            input="\n".join(runs), text=True, capture_output=True, timeout=TIMEOUT_S, check=False,
            env={**os.environ, "OPENAI_API_KEY": server.key, "no_proxy": "*"},
        )  # fmt: skip
        results = [Path(folder) / f"{level}.json" for level in levels]
        if done.returncode != 0 or not all(path.exists() for path in results):
            raise RuntimeError(f"the benchmark client failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return {level: figures(json.loads(path.read_text())) for level, path in zip(levels, results, strict=True)}


def _arguments(server: Server, level: int, result: Path) -> list[str]:
    return [
        "--backend", "openai-chat", "--endpoint", "/v1/chat/completions",
        "--base-url", server.base_url, "--model", server.model, "--tokenizer", str(server.tokenizer),
        "--dataset-name", "random", "--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(OUTPUT_TOKENS),
        "--ignore-eos", "--temperature", "0", "--ready-check-timeout-sec", "0", "--disable-tqdm",
        "--max-concurrency", str(level), "--num-prompts", str(PROMPTS_PER_LEVEL[level]),
        "--num-warmups", str(min(level, 4)),
        "--save-result", "--save-detailed", "--result-dir", str(result.parent), "--result-filename", result.name,
    ]  # fmt: skip


def figures(result: Mapping[str, Any]) -> Figures:
    """What the client wrote, by our names. Raises RuntimeError when a request failed."""
    if result["failed"]:
        first = next(filter(None, result["errors"]), "no reason given")
        raise RuntimeError(f"{result['failed']} requests failed; first error: {first}")
    # The client takes a stream that breaks off with an error event for a success.
    if short := sum(length < OUTPUT_TOKENS for length in result["output_lens"]):
        raise RuntimeError(f"{short} requests failed: their answers ended before {OUTPUT_TOKENS} tokens")
    names = {"output_throughput": "output_tokens_per_s", "median_ttft_ms": "ttft_p50_ms",
             "p99_ttft_ms": "ttft_p99_ms", "median_tpot_ms": "tpot_ms"}  # fmt: skip
    return {ours: float(result[theirs]) for theirs, ours in names.items()}
