"""Callers who leave, from their socket to the engine's own count of what runs. Only Ray is not there."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.router.http_server import server_config
from app.unit.engine import EngineLaunch, Simulation
from app.unit.engine_client import EngineClient
from tests.router.tables import KEY, MakeRouter
from tests.router.units import WAIT_S, Response, forever
from tests.unit.engines import launch_of
from tests.weights.sound_folders import write_sound

CHAT = "/v1/chat/completions"
START_S = 300
FIRST_ANSWER_S = 120
FREED_WITHIN_S = 1.0
BODY = {"model": "ep-1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8000, "ignore_eos": True}
"""Many seconds of either engine's work."""


def vllm(folder: Path) -> dict[str, Any]:
    """A tiny model that may go on for long."""
    write_sound("llama-64", folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 8192}))
    return {"kind": "vllm", "model_dir": str(folder), "max_model_len": 8192, "kv_cache_bytes": 32 << 20}


@pytest.fixture(params=["simulated", pytest.param("vllm", marks=[pytest.mark.engine])])
def launch(request: pytest.FixtureRequest, vllm_run_dir: Path, tmp_path: Path) -> EngineLaunch:
    launch = launch_of(vllm_run_dir, Simulation(between_tokens_s=0.02))
    return launch.model_copy(update=vllm(tmp_path / "model") if request.param == "vllm" else {})


@pytest.fixture
async def engine(launch: EngineLaunch, vllm_run_dir: Path) -> AsyncIterator[EngineClient]:
    client = await EngineClient.start(launch, vllm_run_dir, START_S)
    yield client
    client.close()


async def until_running(engine: EngineClient, count: int, within_s: float) -> None:
    began = time.monotonic()
    while (stats := await engine.stats(WAIT_S)).running != count:
        assert time.monotonic() - began < within_s, stats
        await asyncio.sleep(0.01)


@pytest.mark.timeout(START_S)
async def test_the_engine_stops_within_a_second(
    make_router: MakeRouter, serve_with: Callable[..., str], engine: EngineClient
) -> None:
    router = await make_router(forever)

    def call(*arguments: Any) -> Response:
        return Response(router.units.running, partial(engine.chat, *arguments))

    router.units.remote = call
    headers = {"authorization": f"Bearer {KEY}"}
    url = serve_with(server_config(router.app))
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=FIRST_ANSWER_S, trust_env=False) as http:
        assert (await http.post(CHAT, json=BODY | {"max_tokens": 2})).status_code == 200
        for _ in range(3):
            plain = asyncio.create_task(http.post(CHAT, json=BODY))
            async with http.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
                parts = answer.aiter_bytes()  # kept: to httpx, whoever drops it leaves
                await anext(parts)
                await until_running(engine, 2, WAIT_S)
            await until_running(engine, 1, FREED_WITHIN_S)
            plain.cancel()
            await until_running(engine, 0, FREED_WITHIN_S)
