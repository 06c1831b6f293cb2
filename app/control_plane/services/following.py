"""Logs that are followed: what a log grows by, as one text that comes as it is written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple

from app.control_plane.services.log_places import MAX_STREAMS

FOLLOWED_FOR = timedelta(hours=1)
"""Whoever wants to see more asks again."""
POLL_S = 1.0
SIGN_OF_LIFE_S = 30.0
"""After so long without a line an empty one is sent, so that nothing in between takes the connection for dead."""

Sleep = Callable[[float], Awaitable[None]]


class News(NamedTuple):
    """What a log has grown by since somebody last looked."""

    text: str
    last: bool = False
    """Nothing comes after it."""


class Following:
    """Looks at logs again and again, in threads of its own: nobody else's work waits for those who read."""

    def __init__(self, now: Callable[[], datetime]):
        self._now = now
        self._threads = ThreadPoolExecutor(MAX_STREAMS, "followers")

    async def text(
        self, look: Callable[[], News], allowed: Callable[[], bool], sleep: Sleep = asyncio.sleep
    ) -> AsyncIterator[str]:
        """What `look` finds each time, until that was the last, FOLLOWED_FOR has passed or it is not `allowed` any
        more. Both are asked each time, and may block.
        """
        loop, until, silent_s = asyncio.get_running_loop(), self._now() + FOLLOWED_FOR, 0.0
        while self._now() < until:
            text, last = await loop.run_in_executor(self._threads, lambda: look() if allowed() else News("", last=True))
            if not text and not last and silent_s >= SIGN_OF_LIFE_S:
                text = "\n"
            if text:
                silent_s = 0.0
                yield text
            if last:
                return
            await sleep(POLL_S)
            silent_s += POLL_S

    def close(self) -> None:
        """Begin no look any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
