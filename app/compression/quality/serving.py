"""The process in which the serving speed of a version is measured: python -m app.compression.quality.serving ASKED

It runs the engine of model units (app/unit/vllm_engine.py) as their engine processes do, calls it without any network
between, writes its answer, and ends. It dies with the process that started it, and its engine core with it.
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from contextlib import aclosing
from pathlib import Path

import uvloop

from app.compression.quality.held_out import texts
from app.compression.quality.model_folder import longest_of
from app.compression.quality.speed import Asked, Served
from app.core.errors import PlatformError
from app.core.specs import CPU_SMALL
from app.core.usage import Tokens
from app.libc import die_with_parent
from app.unit import engine_host, engine_sockets
from app.unit.engine import Engine, EngineLaunch
from app.unit.last_words import last_words

MAX_MODEL_LEN = 1024
PROMPT_WORDS = 90
"""About 128 tokens."""
ANSWER_TOKENS = 128
WARM_UP_TOKENS = 16
_READY = "MODELUNIT_SERVING_READY"
"""Set once the environment is what an engine process begins with."""


def launch_of(asked: Asked, longest: int | None, *, on_cpu: bool) -> EngineLaunch:
    """As a unit of the default machine type is started, but without a cache of prefixes."""
    return EngineLaunch(
        endpoint_id="measured",
        model_dir=asked.folder,
        max_model_len=min(MAX_MODEL_LEN, longest or MAX_MODEL_LEN),
        max_num_seqs=64,
        prefix_caching=False,
        enforce_eager=on_cpu and CPU_SMALL.enforce_eager,
        kv_cache_bytes=CPU_SMALL.kv_cache_bytes if on_cpu else None,
        threads=asked.threads,
        log_file=str(Path(asked.scratch) / "log"),
    )


class Callers:
    """Those who keep an engine busy, each with one question after the other; no two are the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers = itertools.count()
        self._words = [word for text in texts() if text.isascii() for word in text.split()]
        self.tokens = 0
        """Of all answers, exactly; those broken off count as far as they got."""

    async def ask(self, tokens: int) -> None:
        """One question, answered in so many tokens."""
        number = next(self._numbers)
        words = random.Random(number).choices(self._words, k=PROMPT_WORDS)
        body = {
            "messages": [{"role": "user", "content": " ".join(words)}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        async with aclosing(self._engine.chat(json.dumps(body).encode(), f"measured-{number}", self._count)) as parts:
            async for _ in parts:
                pass

    async def keep_asking(self) -> None:
        """Until cancelled."""
        while True:
            await self.ask(ANSWER_TOKENS)

    def _count(self, taken: Tokens) -> None:
        self.tokens += taken.completion_tokens


async def tokens_per_s(engine: Engine, concurrency: int, window_s: float) -> float:
    """Of `concurrency` callers over `window_s`, after a short answer for each. Raises PlatformError."""
    callers = Callers(engine)
    await asyncio.gather(*(callers.ask(WARM_UP_TOKENS) for _ in range(concurrency)))
    callers.tokens = 0
    tasks = [asyncio.create_task(callers.keep_asking()) for _ in range(concurrency)]
    began = time.perf_counter()
    await asyncio.wait(tasks, timeout=window_s, return_when=asyncio.FIRST_EXCEPTION)
    elapsed_s = time.perf_counter() - began
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return callers.tokens / elapsed_s


async def _measure(asked: Asked) -> Served:
    from app.unit.vllm_engine import VLLMEngine, on_cpu  # noqa: PLC0415 (ten seconds)

    launch = launch_of(asked, longest_of(Path(asked.folder)), on_cpu=on_cpu())
    began = time.perf_counter()
    try:
        engine = await VLLMEngine.start(launch)
    except Exception as error:
        return Served(problem=last_words(error, Path(launch.log_file)))
    load_s = time.perf_counter() - began
    try:
        rate = await tokens_per_s(engine, asked.concurrency, asked.window_s)
    except PlatformError as error:
        return Served(problem=error.message)
    return Served(load_s=load_s, tokens_per_s=rate)


def main() -> None:
    """Measure, and write the answer where the asking process looks for it."""
    die_with_parent()
    if _READY not in os.environ:
        environment = {**os.environ, **engine_host.openmp(), _READY: "1"}
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], environment)
    os.register_at_fork(after_in_child=die_with_parent)
    asked = Asked.model_validate_json(sys.argv[1])
    scratch = Path(asked.scratch)
    with engine_sockets.socket_folder(scratch) as sockets:
        os.environ["VLLM_RPC_BASE_PATH"] = sockets
        answer = uvloop.run(_measure(asked))
        partial = scratch / "answer.json.partial"
        partial.write_text(answer.model_dump_json())
        partial.rename(scratch / "answer.json")


if __name__ == "__main__":
    main()
