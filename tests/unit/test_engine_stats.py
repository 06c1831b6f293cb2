"""A unit asks its engine process how it is, over their own socket, while answers go on."""

import asyncio
import os
import signal
import time

import pytest

from app.core.frames import NO_STREAM, Kind, encode
from app.core.reports import EngineStats
from app.router.stream import TokenListener
from app.unit.engine import EngineDied
from app.unit.engine_client import SILENCE_ALLOWED_S, SILENCE_LIMIT_S, EngineClient
from tests.unit.engines import WAIT_S, Caller, StartEngine, until_ended

TIMER_MS = 1
"""By which a sleep may be too short: uvloop counts it from the beginning of its turn."""


async def stats_of(engine: EngineClient) -> EngineStats:
    return await engine.stats(WAIT_S)


async def test_a_new_engine_has_done_nothing(start_engine: StartEngine) -> None:
    assert await stats_of(await start_engine()) == EngineStats(kv_cache_pct=0.0)


async def test_answers_are_counted_when_they_end(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(first_token_s=0.05, between_tokens_s=0.01)
    streamed, whole = Caller(listener, engine, max_tokens=6), Caller(listener, engine, stream=False, max_tokens=3)
    await streamed.read_all()
    await whole.read_all()
    await asyncio.gather(streamed.call, whole.call)
    stats = await stats_of(engine)
    assert (stats.requests, stats.prompt_tokens, stats.completion_tokens) == (2, 2, 9)
    assert stats.ttft_count == 1
    assert stats.ttft_ms_sum >= 50 - TIMER_MS
    assert stats.tpot_count == 5
    assert stats.tpot_ms_sum >= 50 - 5 * TIMER_MS
    assert (stats.running, stats.waiting) == (0, 0)


async def test_what_is_under_way_and_what_waits_is_told(start_engine: StartEngine, listener: TokenListener) -> None:
    engine = await start_engine(stall_after_tokens=1)  # it takes four at a time
    callers = [Caller(listener, engine) for _ in range(6)]
    for caller in callers:
        assert await caller.read()
    stats = await stats_of(engine)
    assert (stats.running, stats.waiting, stats.kv_cache_pct) == (4, 2, 100.0)
    assert stats.requests == 0


async def test_an_answer_that_is_broken_off_counts_for_what_was_made_of_it(
    start_engine: StartEngine, listener: TokenListener
) -> None:
    engine = await start_engine(between_tokens_s=0.001, stall_after_tokens=4)
    caller = Caller(listener, engine, max_tokens=100)
    received = b""
    while received.count(b"chunk") < 4:
        received += await caller.read()
    caller.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.call
    deadline = time.monotonic() + WAIT_S
    while (stats := await stats_of(engine)).requests == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert (stats.prompt_tokens, stats.completion_tokens, stats.running) == (1, 4, 0)


async def test_two_who_ask_at_once_get_an_answer_each(start_engine: StartEngine) -> None:
    engine = await start_engine()
    assert await asyncio.gather(stats_of(engine), stats_of(engine)) == [EngineStats(kv_cache_pct=0.0)] * 2


async def test_who_asks_a_dead_engine_does_not_wait_for_ever(start_engine: StartEngine) -> None:
    engine = await start_engine()
    engine.close()
    async with asyncio.timeout(WAIT_S):
        await engine.died.wait()
        with pytest.raises(TimeoutError):
            await engine.stats(0.05)


async def test_an_engine_that_does_not_know_the_question_is_not_asked() -> None:
    engine = EngineClient()
    engine.data_received(encode(NO_STREAM, Kind.READY, b'{"pid": 1}'))
    with pytest.raises(TimeoutError):  # and nothing is written: there is not even a socket
        await engine.stats(WAIT_S)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def until_heard(engine: EngineClient) -> None:
    """Until an answer to the last question came, after which the engine may be silent for a while again."""
    async with asyncio.timeout(WAIT_S):
        while engine.asked:  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.001)


async def test_a_silent_engine_is_asked_and_one_that_answers_is_well(start_engine: StartEngine) -> None:
    clock = Clock()
    engine = await start_engine(clock=clock)
    for _ in range(3):
        clock.now_s += SILENCE_ALLOWED_S + 1
        await engine.check_health()
        assert engine.asked
        await until_heard(engine)
        clock.now_s += SILENCE_ALLOWED_S - 1
        await engine.check_health()
        assert not engine.asked


async def test_an_engine_that_hangs_is_ended(start_engine: StartEngine) -> None:
    clock = Clock()
    engine = await start_engine(clock=clock)
    os.kill(engine.pid, signal.SIGSTOP)
    clock.now_s += SILENCE_ALLOWED_S + 1
    await engine.check_health()
    clock.now_s += SILENCE_LIMIT_S - 1
    await engine.check_health()  # a slow one is let be
    clock.now_s += 2
    with pytest.raises(EngineDied, match="said nothing for 30 s"):
        await engine.check_health()
    async with asyncio.timeout(WAIT_S):
        await engine.died.wait()
    assert "said nothing" in engine.cause
    await until_ended(engine.pid)
