"""The two sides of the comparison: plain vLLM's API server, and the platform."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from app import processes
from app.bench.load import Server
from app.core.specs import CPU_SMALL
from app.local import Say, serve_config
from app.local.platform import down, up
from app.local.ports import free_port
from app.local.running import first_chat
from app.settings import Settings
from app.unit.engine_host import openmp

MAX_MODEL_LEN = 2048
MAX_NUM_SEQS = 64
START_TIMEOUT_S = 600


@dataclass(frozen=True)
class Started:
    """A server that answers."""

    server: Server
    start_to_first_token_s: float
    run_id: str
    """Of its processes."""


@contextlib.contextmanager
def plain(model: Path, threads: int | None, log: Path, *more: str) -> Iterator[Started]:
    """vLLM's API server: with our environment and engine settings, or as it comes when `threads` is None."""
    port = free_port()
    # `vllm serve` reads the version of a distribution named vllm, which the CPU build is not.
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--port",
        str(port),
        *more,
    ]
    environment = dict(os.environ)
    if threads is not None:
        command += [
            "--enforce-eager", "--kv-cache-memory-bytes", str(CPU_SMALL.kv_cache_bytes),
            "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", str(MAX_NUM_SEQS),
            "--no-enable-prefix-caching", "--disable-log-stats", "--disable-uvicorn-access-log",
        ]  # fmt: skip
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": str(threads),
            **openmp(),
        }
    run_id = f"plain-{port}"
    environment[processes.MARK] = run_id
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        server = Server(f"http://127.0.0.1:{port}", str(model), "none", model)
        while not _answers(server):
            if process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
                raise RuntimeError(f"plain vLLM did not start; see {log}")
            time.sleep(0.1)
        yield Started(server, time.monotonic() - started, run_id)
    finally:
        processes.stop(run_id, patience_s=10)
        process.wait()


@contextlib.contextmanager
def plain_default(model: Path, log: Path, say: Say) -> Iterator[Started]:
    """vLLM's API server with the model and nothing else.

    By itself it asks for 92 % of the machine's memory; where that is not free it is told to be content with our KV
    cache size, and `say` hears of it.
    """
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(plain(model, None, log))
        except RuntimeError:
            say("plain vLLM finds too little free memory for its defaults; started with our KV cache size instead")
            started = stack.enter_context(
                plain(model, None, log, "--kv-cache-memory-bytes", str(CPU_SMALL.kv_cache_bytes))
            )
        yield started


@contextlib.contextmanager
def platform(settings: Settings, threads: int, model: Path) -> Iterator[Started]:
    """The platform with the demo endpoint, started as `modelunit up` does; the time ends with its first answer."""
    config = serve_config.read(settings, serve_config.LOCAL)
    engine = {"prefix_caching": False, "threads": threads, "max_num_seqs": MAX_NUM_SEQS}
    serve_config.first_endpoint(config).update(engine=engine, max_model_len=MAX_MODEL_LEN)
    config_file = settings.home / "bench.yaml"
    config_file.write_text(yaml.safe_dump(config))
    started = time.monotonic()
    try:
        running, _ = up(settings, None, lambda _: None, config_file)
        took = time.monotonic() - started
        assert running.endpoint_id
        key = Path(running.admin_key_file).read_text().strip()
        yield Started(Server(running.base_url, running.endpoint_id, key, model), took, running.run_id)
    finally:
        down(settings, lambda _: None)


def _answers(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        url, body = f"{server.base_url}/v1/chat/completions", first_chat(server.model)
        return httpx.post(url, json=body, timeout=60, trust_env=False).status_code == 200
    return False
