"""What an engine process tells a router of each answer's tokens, however it ends."""

import asyncio
import json
from typing import Any

import pytest

from app.core.usage import Tokens
from app.router.stream import Stream, TokenListener
from app.unit.engine_client import EngineClient
from tests.unit.engines import WAIT_S, Caller, StartEngine

THREE_WORDS: Any = [{"role": "user", "content": "one two three"}]
PROMPT = {"prompt_tokens": 4, "cached_tokens": 0}


async def settled(listener: TokenListener, caller: Caller) -> Stream:
    """The stream of a caller who leaves, once all is known of it."""
    over: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    listener.settle(caller.stream, over.set_result)
    caller.call.cancel()
    async with asyncio.timeout(WAIT_S):
        return await over


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_ends_with_its_tokens(start_engine: StartEngine, listener: TokenListener, stream: bool) -> None:
    engine = await start_engine()
    fields = {"messages": THREE_WORDS, "max_tokens": 3, "n": 2, "stream": stream}
    for cached in (0, 3):
        caller = Caller(listener, engine, **fields)
        await caller.read_all()
        assert caller.stream.tokens == Tokens(prompt_tokens=4, cached_tokens=cached, completion_tokens=6)


async def test_usage_is_in_the_stream_for_those_who_ask(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine()
    plain = await Caller(listener, engine, messages=THREE_WORDS, max_tokens=2).read_all()
    assert b"usage" not in plain
    options = {"include_usage": True}
    asked = await Caller(listener, engine, messages=THREE_WORDS, max_tokens=2, stream_options=options).read_all()
    *_, last, done = asked.decode().strip().split("\n\n")
    assert done == "data: [DONE]"
    event = json.loads(last.removeprefix("data: "))
    assert event["choices"] == []
    assert (event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"]) == (4, 2)


async def test_who_leaves_is_told_what_was_made_until_then(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(between_tokens_s=0.001, stall_after_tokens=5)
    caller = Caller(listener, engine, messages=THREE_WORDS, max_tokens=100)
    received = b""
    while received.count(b"chunk") < 5:
        received += await caller.read()
    assert caller.stream.passed == Tokens(**PROMPT, completion_tokens=5)
    assert (await settled(listener, caller)).tokens == Tokens(**PROMPT, completion_tokens=5)


async def test_who_leaves_at_once_is_told_too(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(first_token_s=WAIT_S)
    await warm(engine, listener)
    caller = Caller(listener, engine, messages=THREE_WORDS)
    await asyncio.sleep(0)  # the call is written, and the cancel right behind it
    assert (await settled(listener, caller)).told_last


async def warm(engine: EngineClient, listener: TokenListener) -> None:
    """Have the engine connect to the router."""
    caller = Caller(listener, engine)
    async with asyncio.timeout(WAIT_S):
        while (await engine.stats(WAIT_S)).running == 0:  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.005)
    await settled(listener, caller)


async def test_of_a_killed_engine_it_is_known_what_passed(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(between_tokens_s=0.001, die_after_tokens=7)
    caller = Caller(listener, engine, messages=THREE_WORDS, max_tokens=100)
    with pytest.raises(Exception, match="stopped working"):
        await caller.read_all()
    assert caller.stream.tokens is None
    assert caller.stream.passed.completion_tokens <= 7
    assert caller.stream.passed.prompt_tokens == 4
    with pytest.raises(Exception, match="stopped working"):
        await caller.call
