"""What logs of endpoints and of jobs have in common over the API: how they are asked for, and how they are sent.

As one long text each holds a place while it runs, for there are not threads and connections without end.
"""

from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.control_plane.platform import Platform
from app.control_plane.services.following import News
from app.core.errors import InvalidField
from app.core.records import ApiKey
from app.core.texts import Line

Search = Annotated[Line, Query(max_length=256)]
LIST_OR_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/plain": {}}}}
TEXT = "text/plain; charset=utf-8"
FOLLOWED = {"cache-control": "no-store"}
"""Headers of a log that grows while it is sent."""


def attached(name: str) -> dict[str, str]:
    """Headers of a log that browsers save."""
    return {"content-disposition": f'attachment; filename="{name}.log"'}


def refuse_beside_follow(**given: object) -> None:
    """Raises InvalidField for the first of these that was given together with follow=true."""
    for name, value in given.items():
        if value:
            raise InvalidField(f"{name} has no meaning together with follow=true.", name)


class LogStream(StreamingResponse):
    """Holds a place while it runs. Raises what taking it raises, before anything is sent."""

    def __init__(
        self, chunks: Iterable[str] | AsyncIterable[str], place: AbstractContextManager[None], headers: dict[str, str]
    ):
        self._place = place
        super().__init__(chunks, media_type=TEXT, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:  # only now: a request that was cancelled before would never give it back
            await super().__call__(scope, receive, send)


def followed(look: Callable[[], News], caller: ApiKey, platform: Platform) -> LogStream:
    """What `look` finds as it comes, as long as the caller's key lives."""
    chunks = platform.following.text(look, lambda: platform.keys.holds(caller))
    return LogStream(chunks, platform.log_places.taken(caller.workspace), FOLLOWED)
