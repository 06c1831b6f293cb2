"""Counts each request that an engine worked on, once: by what its engine told, else by what passed here."""

import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

from app.core.errors import UnitLost
from app.core.routing import Grant, Route
from app.core.usage import Account, Entry
from app.router.stream import GIVEN_UP, Stream


class Book(Protocol):
    """Where entries are written down."""

    def write(self, entry: Entry) -> None:
        """Keep it. Never fails, and takes some microseconds."""
        ...


class UsageMeter:
    """All requests of one router."""

    def __init__(self, book: Book, wall: Callable[[], float] = time.time):
        """`wall` tells Unix time in seconds."""
        self.book = book
        self.wall = wall
        self._numbers = count(1)

    def request(self, request_id: str, grant: Grant, route: Route, settle: Callable[[int], None]) -> "MeteredRequest":
        """A request that was let through. `settle` is told how many tokens it took, once that is known."""
        account = Account(route.workspace, grant.key_id, route.endpoint_id)
        return MeteredRequest(self, account, request_id, next(self._numbers), settle)


class MeteredRequest:
    """What one request takes. It counts when the last is known of it."""

    def __init__(
        self, meter: UsageMeter, account: Account, request_id: str, number: int, settle: Callable[[int], None]
    ):
        self._meter = meter
        self._account = account
        self.request_id = request_id
        self._number = number
        self._settle = settle
        self._has_ended = False

    def begun(self, stream: Stream) -> None:
        """The answer's first bytes are there. This router may not live to see its end, or its reader take it all."""
        if stream.told_last:
            self.ended(stream, taken=True)
        else:
            self._write(stream, begun=True)

    def ended(self, stream: Stream, *, taken: bool) -> None:
        """No more is to be known of the answer; what comes first counts. `taken`: a unit had accepted the call.

        What no engine has worked on took no tokens; what one has, and did not count, took those that it was reckoned
        to need.
        """
        if self._has_ended:
            return
        self._has_ended = True
        if stream.tokens is not None:
            self._settle(stream.tokens.prompt_tokens + stream.tokens.completion_tokens)
            self._write(stream, requests=1)
        elif _worked_on(stream, taken):
            self._write(stream, requests=1, partial_requests=1)
        else:
            self._settle(0)

    def _write(self, stream: Stream, requests: int = 0, partial_requests: int = 0, begun: bool = False) -> None:
        entry = Entry.model_construct(
            **self._account._asdict(),
            **(stream.tokens or stream.passed).__dict__,
            at=self._meter.wall(),
            request_id=self.request_id,
            number=self._number,
            requests=requests,
            partial_requests=partial_requests,
            begun=begun,
        )
        self._meter.book.write(entry)


def _worked_on(stream: Stream, taken: bool) -> bool:
    """Whether an engine had the request that did not tell of its end; what it refused it did not work on."""
    if stream.status or stream.told_last:
        return stream.status > 0
    if stream.error is None or isinstance(stream.error, GIVEN_UP):
        return taken
    return type(stream.error) is UnitLost  # and not that it was gone before
