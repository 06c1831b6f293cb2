"""Limits of API keys: what may be set, one router's share of it, and what a request is reckoned to take."""

from typing import Annotated

from pydantic import Field

from app.core.specs import Spec

REQUESTS_AT_ONCE, TOKENS_AT_ONCE = 50, 10_000
"""What a key may take at once after a pause, unless its limit a minute is lower; see Rate.a_minute. Limits of 50
requests a second and more go through as evenly as an endpoint's."""
BYTES_PER_TOKEN = 4
"""Of a request's body, in the mean of many languages; only until the engine has counted."""
USUAL_ANSWER_TOKENS = 256
"""Of an answer whose request says nothing of its length."""


class KeyLimits(Spec):
    """What a key takes at most, over all endpoints and routers; beyond it callers get 429. None: no such limit."""

    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    """Of prompts and answers."""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests under way at once."""

    def share_under_way(self, routers: int) -> int | None:
        """Requests that one router may have under way: all together never more than the limit, but one at each."""
        return None if self.concurrency is None else max(1, self.concurrency // routers)

    def described(self) -> str:
        """For people."""
        limits = {
            "{:,} requests a minute": self.requests_per_minute,
            "{:,} tokens a minute": self.tokens_per_minute,
            "{:,} requests at once": self.concurrency,
        }
        return ", ".join(words.format(limit) for words, limit in limits.items() if limit is not None) or "no limits"


NO_LIMITS = KeyLimits()


def reckoned_tokens(body_bytes: int, max_tokens: int | None, answers: int | None) -> int:
    """What a request may take of a limit, before anything has been counted: its prompt, and every answer in full."""
    return -(-body_bytes // BYTES_PER_TOKEN) + (max_tokens or USUAL_ANSWER_TOKENS) * (answers or 1)
