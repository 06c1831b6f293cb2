"""What an engine counts of its answers."""

from app.core.usage import Tokens
from app.unit.engine_tally import EngineTally


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_streamed_answer_has_a_first_token_and_further_ones() -> None:
    clock = Clock()
    tally = EngineTally(clock)
    answering = tally.begin()
    clock.now += 0.25
    tally.first_token(answering)
    clock.now += 0.5
    tally.end(answering, Tokens(prompt_tokens=7, completion_tokens=11))
    stats = tally.stats(running=0, waiting=0, kv_cache_pct=None)
    assert (stats.requests, stats.prompt_tokens, stats.completion_tokens) == (1, 7, 11)
    assert (stats.ttft_ms_sum, stats.ttft_count) == (250.0, 1)
    assert (stats.tpot_ms_sum, stats.tpot_count) == (500.0, 10)


def test_texts_made_side_by_side_are_not_taken_for_one_that_was_made_faster() -> None:
    clock = Clock()
    tally = EngineTally(clock)
    answering = tally.begin()
    tally.first_token(answering)
    clock.now += 1.0
    tally.end(answering, Tokens(prompt_tokens=1, completion_tokens=22), choices=2)
    stats = tally.stats(running=0, waiting=0, kv_cache_pct=None)
    assert (stats.tpot_ms_sum, stats.tpot_count) == (1000.0, 10)
    assert stats.completion_tokens == 22


def test_what_is_not_streamed_or_has_one_token_has_no_time_per_token() -> None:
    tally = EngineTally(Clock())
    tally.end(tally.begin(), Tokens(prompt_tokens=3, completion_tokens=9))
    answering = tally.begin()
    tally.first_token(answering)
    tally.end(answering, Tokens(prompt_tokens=3, completion_tokens=1))
    stats = tally.stats(running=1, waiting=2, kv_cache_pct=5.0)
    assert (stats.requests, stats.ttft_count, stats.tpot_count, stats.tpot_ms_sum) == (2, 1, 0, 0.0)
    assert (stats.running, stats.waiting, stats.kv_cache_pct) == (1, 2, 5.0)
