"""A unit that starts tells the control plane what it does. Its start is the same whether anybody listens or not."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from app.unit.weight_cache_progress import Progress

STARTING_ENGINE = "starting the engine"
WARMING_UP = "warming up"
PERIOD_S = 1.0
"""From one report to the next, at least."""
REPEAT_S = 5.0
"""After so long what has not changed is told again; the control plane forgets it after 15 s."""

Tell = Callable[[str], Awaitable[None]]
"""Has a deadline of its own, and may raise anything."""

log = logging.getLogger("ray.serve")


def weights_phase(progress: Progress | None) -> str:
    """What happens to a version's weights on this node."""
    if progress is None or progress.done_bytes >= progress.total_bytes:
        return "checking weights"
    return f"{'fetching' if progress.fetching else 'checking'} weights: {progress}"


@contextlib.asynccontextmanager
async def telling(tell: Tell, phase: Callable[[], str]) -> AsyncIterator[None]:
    """Meanwhile tell what `phase`, which may read files, returns. What fails here is logged and nothing else."""
    teller = asyncio.create_task(_tell_again_and_again(tell, phase))
    try:
        yield
    finally:
        teller.cancel()


async def _tell_again_and_again(tell: Tell, phase: Callable[[], str]) -> None:
    told, told_at = "", -math.inf
    while True:
        try:
            now = await asyncio.to_thread(phase)
            if now != told or time.monotonic() - told_at >= REPEAT_S:
                await tell(now)
                told, told_at = now, time.monotonic()
        except Exception as error:
            log.debug("the control plane was not told of this start (%s)", type(error).__name__)
        await asyncio.sleep(PERIOD_S)
