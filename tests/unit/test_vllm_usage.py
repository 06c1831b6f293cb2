"""What a real engine tells of its answers' tokens is what vLLM tells its callers, also of those who left."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.core.usage import Tokens
from app.router.stream import TokenListener
from app.unit.engine import Simulation
from app.unit.engine_client import EngineClient
from tests.unit.engines import Caller, launch_of
from tests.weights.sound_folders import write_sound

START_S = 300
ANSWER_S = 120
QUESTION = {"messages": [{"role": "user", "content": "where is the capital of France, and of what is it known? " * 8}]}

pytestmark = [pytest.mark.engine, pytest.mark.timeout(START_S + ANSWER_S), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(vllm_run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineClient]:
    """One for all tests here."""
    model = tmp_path_factory.mktemp("vllm") / "model"
    write_sound("llama-64", model)
    launch = launch_of(vllm_run_dir, Simulation()).model_copy(
        update={"kind": "vllm", "model_dir": str(model), "max_model_len": 1024, "kv_cache_bytes": 16 << 20}
    )
    client = await EngineClient.start(launch, vllm_run_dir, START_S)
    yield client
    client.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def router() -> AsyncIterator[TokenListener]:
    listener = TokenListener()
    await listener.start("127.0.0.1")
    yield listener
    listener.stop()


async def told(caller: Caller) -> tuple[Any, Tokens | None]:
    """What vLLM's answer says of its usage, and what the router hears."""
    body = b""
    while part := await caller.stream.read(ANSWER_S, "bytes"):
        body += part
    if caller.stream.content_type == "application/json":
        return json.loads(body)["usage"], caller.stream.tokens
    events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
    return next((event["usage"] for event in events if event.get("usage")), None), caller.stream.tokens


def as_tokens(usage: Any) -> Tokens:
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Tokens(
        prompt_tokens=usage["prompt_tokens"], cached_tokens=cached, completion_tokens=usage["completion_tokens"]
    )


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_are_those_of_vllms_own_usage(
    engine: EngineClient, router: TokenListener, stream: bool, n: int
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    seen = []
    for _ in range(2):  # the second time most of the prompt is in the prefix cache
        said = f"asked for {n} as a stream: {stream}"  # so that the first time it is not
        asked = QUESTION["messages"] + [{"role": "user", "content": said}]
        fields = {"messages": [asked[1], asked[0]], "max_tokens": 9, "ignore_eos": True, "n": n, "stream": stream}
        usage, tokens = await told(Caller(router, engine, **fields, **options))
        assert tokens == as_tokens(usage)
        seen.append(tokens)
    assert [tokens.completion_tokens for tokens in seen] == [9 * n] * 2
    assert 0 < seen[1].cached_tokens < seen[1].prompt_tokens == seen[0].prompt_tokens
    if n == 1:  # else one choice may have what the other has just read, and vLLM tells of either
        assert seen[0].cached_tokens < seen[1].cached_tokens


async def test_a_stream_without_usage_is_counted_all_the_same(engine: EngineClient, router: TokenListener) -> None:
    usage, tokens = await told(Caller(router, engine, **QUESTION, max_tokens=5, ignore_eos=True))
    assert usage is None
    assert tokens
    assert tokens.completion_tokens == 5
    assert tokens.prompt_tokens > 100


async def test_the_prompt_is_known_with_the_first_bytes(engine: EngineClient, router: TokenListener) -> None:
    caller = Caller(router, engine, **QUESTION, max_tokens=300, ignore_eos=True)
    await caller.read()
    passed = caller.stream.passed
    assert passed.prompt_tokens > 100
    _, tokens = await told(caller)
    assert tokens
    assert (tokens.prompt_tokens, tokens.cached_tokens) == (passed.prompt_tokens, passed.cached_tokens)
    assert passed.completion_tokens < caller.stream.passed.completion_tokens <= tokens.completion_tokens == 300


@pytest.mark.parametrize("stream", [True, False])
async def test_who_leaves_is_told_what_was_made_until_then(
    engine: EngineClient, router: TokenListener, stream: bool
) -> None:
    caller = Caller(router, engine, **QUESTION, max_tokens=350, ignore_eos=True, stream=stream)
    if stream:
        await caller.read()
    else:
        async with asyncio.timeout(ANSWER_S):
            while not (await engine.stats(ANSWER_S)).running:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # for some tokens; whether there are any is of no importance
    settled = asyncio.get_running_loop().create_future()
    router.settle(caller.stream, settled.set_result)
    caller.call.cancel()
    async with asyncio.timeout(ANSWER_S):
        tokens = (await settled).tokens
    assert tokens is not None
    assert 0 <= tokens.completion_tokens < 350
    if stream:
        assert tokens.completion_tokens > 0
        assert tokens.prompt_tokens > 100


async def test_what_vllm_refuses_has_taken_nothing(engine: EngineClient, router: TokenListener) -> None:
    caller = Caller(router, engine, messages=[{"role": "user", "content": "too long " * 200}])
    assert await caller.call == "failed"
    await caller.stream.ready(ANSWER_S)
    assert (caller.stream.told_last, caller.stream.tokens) == (True, None)
