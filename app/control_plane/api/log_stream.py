"""Logs as one long text. Each holds a place while it runs, for there are not threads and connections without end."""

from collections.abc import AsyncIterable, Iterable
from threading import Semaphore

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import TooManyRequests


class LogStream(StreamingResponse):
    """Raises TooManyRequests at once when all places are taken."""

    def __init__(self, chunks: Iterable[str] | AsyncIterable[str], places: Semaphore, headers: dict[str, str]):
        if not places.acquire(blocking=False):
            raise TooManyRequests("Too many logs are being followed or downloaded already; try again later.")
        self._places = places
        super().__init__(chunks, media_type="text/plain; charset=utf-8", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()
