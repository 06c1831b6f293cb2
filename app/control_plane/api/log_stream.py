"""What logs of endpoints and of jobs have in common over the API: how they are asked for, and how they are sent.

As one long text each holds a place while it runs, for there are not threads and connections without end.
"""

from collections.abc import AsyncIterable, Iterable
from threading import Semaphore
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import TooManyRequests
from app.core.texts import Line

Search = Annotated[Line, Query(max_length=256)]
LIST_OR_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/plain": {}}}}
TEXT = "text/plain; charset=utf-8"
FOLLOWED = {"cache-control": "no-store"}
"""Headers of a log that grows while it is sent."""


def attached(name: str) -> dict[str, str]:
    """Headers of a log that browsers save."""
    return {"content-disposition": f'attachment; filename="{name}.log"'}


class LogStream(StreamingResponse):
    """Raises TooManyRequests at once when all places are taken."""

    def __init__(self, chunks: Iterable[str] | AsyncIterable[str], places: Semaphore, headers: dict[str, str]):
        if not places.acquire(blocking=False):
            raise TooManyRequests("Too many logs are being followed or downloaded already; try again later.")
        self._places = places
        super().__init__(chunks, media_type=TEXT, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()
