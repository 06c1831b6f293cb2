"""Counts what an engine does, once per answer when it ends: nothing is done per token."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.core.reports import EngineStats
from app.core.usage import Tokens


@dataclass(slots=True)
class Answering:
    """An answer under way."""

    begun_at: float
    first_token_at: float | None = None


class EngineTally:
    """The counters of one engine, since it started."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._requests = self._prompt_tokens = self._completion_tokens = 0
        self._ttft_ms_sum = self._tpot_ms_sum = 0.0
        self._ttft_count = self._tpot_count = 0

    def begin(self) -> Answering:
        """A request has arrived."""
        return Answering(self._clock())

    def first_token(self, answering: Answering) -> None:
        """A streamed answer begins."""
        answering.first_token_at = self._clock()

    def end(self, answering: Answering, tokens: Tokens, choices: int = 1) -> None:
        """The answer is over, complete or not; `choices` is how many texts it has, which are made side by side."""
        self._requests += 1
        self._prompt_tokens += tokens.prompt_tokens
        self._completion_tokens += tokens.completion_tokens
        if answering.first_token_at is not None:
            self._ttft_ms_sum += (answering.first_token_at - answering.begun_at) * 1000
            self._ttft_count += 1
            further_tokens = tokens.completion_tokens // choices - 1
            if further_tokens > 0:
                self._tpot_ms_sum += (self._clock() - answering.first_token_at) * 1000
                self._tpot_count += further_tokens

    def stats(self, *, running: int, waiting: int, kv_cache_pct: float | None) -> EngineStats:
        """The counters, with how the engine is now."""
        return EngineStats(
            requests=self._requests,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            ttft_ms_sum=self._ttft_ms_sum,
            ttft_count=self._ttft_count,
            tpot_ms_sum=self._tpot_ms_sum,
            tpot_count=self._tpot_count,
            running=running,
            waiting=waiting,
            kv_cache_pct=kv_cache_pct,
        )
