"""Brings what the usage spool holds to the control plane. While that is away the spool grows, and nobody waits."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from pydantic import ValidationError

from app.core.errors import BadRequest
from app.core.usage import UsageBatch, rows_of
from app.router.usage_file import UsageFile, entries
from app.router.usage_spool import UsageSpool

PERIOD_S = 2.0
CLAIM_S = 30.0
"""How often it is looked for what other routers of this node have left."""
BATCH_BYTES = 256 << 10

log = logging.getLogger("ray.serve")


class UsageSink(Protocol):
    """Who takes usage: the control plane's handle, or a test."""

    async def usage(self, batch: str) -> int:
        """Take a UsageBatch as JSON; returns up to where its spool has been taken. May raise anything."""
        ...


class UsageSender:
    """Sends one batch after the other. One that was sent and not answered is sent again, and counts once."""

    def __init__(self, spool: UsageSpool, sink: UsageSink, clock: Callable[[], float] = time.monotonic):
        self._spool = spool
        self._sink = sink
        self._clock = clock
        self._claimed_at = -math.inf
        self._failing = False

    async def run(self) -> None:
        """Send again and again; never returns and never gives up."""
        while True:
            try:
                await self.step()
            except Exception:
                log.exception("usage could not be sent; that is tried again")
            await asyncio.sleep(PERIOD_S)

    async def step(self) -> None:
        """Send all that there is."""
        self._spool.flush()
        if self._clock() - self._claimed_at >= CLAIM_S:
            self._claimed_at = self._clock()
            self._spool.adopt(await asyncio.to_thread(self._spool.claim))
        try:
            for file in list(self._spool.files):
                await self._send_all(file)
            self._failing = False
        except Exception as error:
            if not self._failing:
                log.warning("the control plane takes no usage (%s); it is kept here", type(error).__name__)
            self._failing = True

    async def close(self) -> None:
        """Send the last, and leave what is not taken to another router."""
        await self.step()
        self._spool.close()

    async def _send_all(self, file: UsageFile) -> None:
        try:
            while file.taken_bytes is None or file.waiting_bytes:
                await self._send(file)
        except (BadRequest, ValidationError):  # it would be refused for ever, and what is behind it would wait
            self._spool.set_aside(file, await asyncio.to_thread(_waiting_requests, file))
        else:
            self._spool.taken(file)

    async def _send(self, file: UsageFile) -> None:
        taken_bytes = await self._sink.usage(await asyncio.to_thread(_batch, file))
        if taken_bytes == file.taken_bytes:
            raise ValueError("a batch was not taken")
        file.taken_bytes = taken_bytes


def _waiting_requests(file: UsageFile) -> int:
    return sum(entry.requests for entry in entries(file.read(file.taken_bytes or 0, file.size_bytes)))


def _batch(file: UsageFile) -> str:
    """The next stretch of a file; none of it where it is to be asked how far it was taken."""
    taken_bytes = file.taken_bytes or 0
    data = b"" if file.taken_bytes is None else file.read(taken_bytes, BATCH_BYTES)
    batch = UsageBatch(
        spool=file.id, from_bytes=taken_bytes, to_bytes=taken_bytes + len(data), rows=rows_of(entries(data))
    )
    return batch.model_dump_json()
