"""Logs that are followed: what a log grows by, as one text that comes as it is written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

POLL_S = 1.0
SIGN_OF_LIFE_S = 30.0
"""After so long without a line an empty one is sent, so that nothing in between takes the connection for dead."""

Sleep = Callable[[float], Awaitable[None]]


class News(NamedTuple):
    """What a log has grown by since somebody last looked."""

    text: str
    last: bool = False
    """Nothing comes after it."""


async def follow(look: Callable[[], News], sleep: Sleep = asyncio.sleep) -> AsyncIterator[str]:
    """What `look`, which may block, finds each time, until that was the last."""
    silent_s = 0.0
    while True:
        text, last = await asyncio.to_thread(look)
        if not text and not last and silent_s >= SIGN_OF_LIFE_S:
            text = "\n"
        if text:
            silent_s = 0.0
            yield text
        if last:
            return
        await sleep(POLL_S)
        silent_s += POLL_S
