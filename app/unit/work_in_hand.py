"""What a unit has in hand, counted as its calls come and go: what Serve's policy is told of every unit."""

import contextlib
import time
from collections.abc import Callable, Iterator

BYTES_PER_TOKEN = 4
"""Of a request's JSON: text of most languages is between 3 and 5. Nothing is tokenized twice for this."""


class WorkInHand:
    """The calls of one unit."""

    def __init__(self, max_model_len: int, clock: Callable[[], float] = time.monotonic):
        self._max_tokens = max_model_len
        self._clock = clock
        self._calls = 0
        self._tokens = 0
        self._quiet_since: float | None = None
        """The end of the last call; None before the first has ended."""

    @contextlib.contextmanager
    def call(self, body_bytes: int = 0) -> Iterator[None]:
        """One call from its arrival to its end, however it ends."""
        tokens = min(body_bytes // BYTES_PER_TOKEN, self._max_tokens)
        self._calls += 1
        self._tokens += tokens
        try:
            yield
        finally:
            self._calls -= 1
            self._tokens -= tokens
            self._quiet_since = self._clock()

    def stats(self) -> dict[str, float]:
        """Tokens of the prompts in hand, about, and how long there has been no call; of that nothing before the first.

        A unit that has just come, and was not needed in the end, does not put off sleep.
        """
        if self._calls:
            return {"tokens": self._tokens, "idle_s": 0.0}
        idle = {} if self._quiet_since is None else {"idle_s": self._clock() - self._quiet_since}
        return {"tokens": self._tokens, **idle}
