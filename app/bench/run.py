"""The whole benchmark: trials for the thread count, alternating rounds, start, idle; a table and bench.json."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from app import processes
from app.bench import arms, idle
from app.bench.compression import measure_compression
from app.bench.elastic import measure_elastic
from app.bench.limits import Row, in_words
from app.bench.load import Figures, measure
from app.bench.records import measure_records
from app.bench.router import measure_router
from app.bench.rows import rows, rows_alone
from app.bench.s3_server import NotInstalled
from app.bench.stage import ENGINE_HOST
from app.bench.tuning import measure_tuning
from app.bench.upload import measure_upload
from app.bench.validation import measure_70b
from app.local import Say
from app.local.ports import free_port
from app.settings import Settings
from app.store.layout import version_prefix
from app.store.objects import open_store
from app.weights.prepare import DEMO_ID

LEVELS = (1, 8, 16)
TRIAL_LEVEL = 16
ENGINE_MARKS = (ENGINE_HOST, "VLLM::")

Samples = dict[str, list[float]]
Figured = tuple[Samples, Samples, Samples]
"""Ours, plain's, and ours that have nothing beside them; each row's figures by its name."""


class Part(NamedTuple):
    """A part of the benchmark that needs nothing of the others."""

    what: str
    measure: Callable[[Settings, Path, int, Say], Figured]


def run(home: Path, rounds: int, say: Say, only: str | None = None) -> list[Row]:
    """Measure everything, or `only` one of PARTS; minutes. Works in a HOME of its own below `home`.

    Everything is also in `home`/bench.json.
    """
    settings = Settings(home=home / "bench", http_port=free_port())
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    model = _model(settings, say)
    (ours, plain, alone), caption = (({}, {}, {}), None) if only else _engine(settings, model, rounds, say)
    for name, part in PARTS.items():
        if only in (name, None):
            say(part.what)
            more_ours, more_plain, more_alone = part.measure(settings, model, rounds, say)
            ours, plain, alone = ours | more_ours, plain | more_plain, alone | more_alone
    table = rows(ours, plain) + rows_alone(alone)
    if not only:
        (home / "bench.json").write_text(json.dumps(table, indent=2))
    _print(table, caption)
    return table


def _engine(settings: Settings, model: Path, rounds: int, say: Say) -> tuple[Figured, str]:
    """What vLLM has part in, and what is to be said of the threads."""
    plain_log = settings.log_dir / "plain-vllm.log"
    cores = os.cpu_count() or 1
    ours_threads, plain_threads = _best_threads(settings, model, plain_log, cores, say)
    ours: Samples = {}
    plain: Samples = {}
    for number in range(1, rounds + 1):
        with arms.platform(settings, ours_threads, model) as started:
            _take(ours, started, measure(started.server, LEVELS), say, f"round {number} ours ")
            if number == rounds:
                time.sleep(idle.SETTLE_S)
                everything = processes.marked(started.run_id)
                engine = [process for process in everything if _is_engine(process)]
                _put(ours, "idle_{}", *idle.cost(process for process in everything if process not in engine))
                _put(ours, "engine_{}_vs_default", *idle.cost(engine))
        with arms.plain(model, plain_threads, plain_log) as started:
            _take(plain, started, measure(started.server, LEVELS), say, f"round {number} plain")
    say("plain vLLM with nothing but the model")
    with arms.plain_default(model, plain_log, say) as started:
        plain["start_to_first_token_s"] = [started.start_to_first_token_s]
        default = measure(started.server, (TRIAL_LEVEL,))[TRIAL_LEVEL]
        plain[f"output_tokens_per_s_c{TRIAL_LEVEL}_vs_default"] = [default["output_tokens_per_s"]]
        ours[f"output_tokens_per_s_c{TRIAL_LEVEL}_vs_default"] = ours[f"output_tokens_per_s_c{TRIAL_LEVEL}"]
        time.sleep(idle.SETTLE_S)
        _put(plain, "engine_{}_vs_default", *idle.cost(processes.marked(started.run_id)))
    say("endpoints that sleep, wake and get more units")
    with arms.platform(settings, ours_threads, model):
        wakes, elastic = measure_elastic(settings, rounds, say)
    ours |= wakes
    plain |= dict.fromkeys(wakes, plain["start_to_first_token_s"])
    say("bare Ray with Serve and one empty deployment")
    _put(plain, "idle_{}", *idle.bare_ray(settings, free_port()))
    caption = f"threads per engine: ours {ours_threads}, plain {plain_threads} (each at its best of 1 and {cores})"
    return (ours, plain, elastic), caption


def _router(settings: Settings, model: Path, rounds: int, say: Say) -> Figured:
    with arms.platform(settings, 1, model):
        return measure_router(settings, rounds, say)


def _upload(settings: Settings, model: Path, rounds: int, say: Say) -> Figured:
    try:
        return *measure_upload(rounds), {}
    except NotInstalled as missing:
        say(f"no upload row: {missing}")
        return {}, {}, {}


def _tuning(settings: Settings, model: Path, rounds: int, say: Say) -> Figured:
    return *measure_tuning(model, rounds), {}


def _compression(settings: Settings, model: Path, rounds: int, say: Say) -> Figured:
    return measure_compression(model, rounds)


def _validation(settings: Settings, model: Path, rounds: int, say: Say) -> Figured:
    return {}, {}, measure_70b(settings.run_dir, rounds)


def _records(settings: Settings, model: Path, rounds: int, say: Say) -> Figured:
    return {}, {}, measure_records(rounds)


PARTS = {
    "router": Part("the router, against a bare Serve ingress", _router),
    "upload": Part("uploads, against plain boto3", _upload),
    "tuning": Part("LoRA tuning, against transformers' Trainer", _tuning),
    "compression": Part("compression, against llm-compressor's oneshot", _compression),
    "validation": Part("validation of a folder shaped like a 70B model", _validation),
    "records": Part("a thousand endpoints in the control plane", _records),
}
"""What can be measured by itself, by name."""


def _model(settings: Settings, say: Say) -> Path:
    say("preparing the model")
    command = [sys.executable, "-m", "app.weights.prepare"]
    environment = settings.to_environ()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=600)
    path = open_store(settings).local_path(version_prefix(DEMO_ID, "BF16") + "config.json")
    assert path
    return path.parent


def _best_threads(settings: Settings, model: Path, log: Path, cores: int, say: Say) -> tuple[int, int]:
    """The thread count with the most tokens per second, for us and for plain vLLM, each on its own."""
    tried: dict[str, dict[int, float]] = {"ours": {}, "plain": {}}
    for threads in sorted({1, cores}):
        with arms.platform(settings, threads, model) as started:
            tried["ours"][threads] = _throughput(started)
        with arms.plain(model, threads, log) as started:
            tried["plain"][threads] = _throughput(started)
        say(f"{threads} threads: " + ", ".join(f"{arm} {rates[threads]:.0f} tokens/s" for arm, rates in tried.items()))
    ours, plain = (max(rates, key=lambda threads: rates[threads]) for rates in tried.values())
    return ours, plain


def _throughput(started: arms.Started) -> float:
    return measure(started.server, (TRIAL_LEVEL,))[TRIAL_LEVEL]["output_tokens_per_s"]


def _take(into: Samples, started: arms.Started, by_level: dict[int, Figures], say: Say, what: str) -> None:
    into.setdefault("start_to_first_token_s", []).append(started.start_to_first_token_s)
    for level, figures in by_level.items():
        for name, value in figures.items():
            into.setdefault(f"{name}_c{level}", []).append(value)
    rates = ", ".join(f"c{level} {figures['output_tokens_per_s']:.0f} tokens/s" for level, figures in by_level.items())
    say(f"{what}: {rates}, start {started.start_to_first_token_s:.1f} s")


def _put(into: Samples, name: str, cpu_pct: float, pss_bytes: int) -> None:
    into[name.format("cpu_pct")] = [cpu_pct]
    into[name.format("pss_bytes")] = [float(pss_bytes)]


def _is_engine(process: psutil.Process) -> bool:
    try:
        return any(mark in part for part in process.cmdline() for mark in ENGINE_MARKS)
    except psutil.NoSuchProcess:
        return False


def _print(measured: list[Row], caption: str | None) -> None:
    columns = ("name", "unit", "ours", "plain", "ratio", "spread")
    table = Table(*columns, "limit", box=None, caption=caption)
    for row in measured:
        table.add_row(*(_shown(row[column]) for column in columns), in_words(row["limit"]))
    Console(width=140 if not shutil.get_terminal_size().columns > 140 else None).print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, float) else str(value)
