"""Prefixes that a real engine keeps: shared under the salt that its unit was told, whatever callers say."""

import json
from pathlib import Path

import pytest

from app.router.stream import TokenListener
from app.unit.engine import Simulation
from app.unit.engine_client import EngineClient
from tests.unit.engines import Caller, launch_of
from tests.weights.sound_folders import write_sound

START_S = 300
ANSWER_S = 120
"""The first one, where others need the cores too."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * START_S)]


async def test_a_callers_salt_changes_nothing(vllm_run_dir: Path, tmp_path: Path, listener: TokenListener) -> None:
    write_sound("llama-64", tmp_path / "model")
    launch = launch_of(vllm_run_dir, Simulation()).model_copy(
        update={
            "kind": "vllm", "model_dir": str(tmp_path / "model"), "max_model_len": 512, "kv_cache_bytes": 16 << 20,
            "cache_salt": "of-the-workspace",
        }
    )  # fmt: skip
    engine = await EngineClient.start(launch, vllm_run_dir, START_S)
    messages = [{"role": "user", "content": "what is it that everybody asks? " * 4}]
    cached = []
    for salt in ("mine", "another"):
        caller = Caller(listener, engine, messages=messages, max_tokens=2, stream=False, cache_salt=salt)
        usage = json.loads(await caller.stream.read(ANSWER_S, "the answer"))["usage"]
        cached.append((usage["prompt_tokens_details"] or {}).get("cached_tokens", 0))
    assert cached[0] == 0 < cached[1]
    engine.close()
