"""One connection of the router's own listener: uvicorn's, with bounds against those who only hold it open."""

import asyncio
import json
import resource
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.errors import BadRequest

HEAD_TIMEOUT_S = 10.0
HEAD_LIMIT_BYTES = 64 << 10
UNREAD_TIMEOUT_S = 120.0
"""How long a caller may leave unread what was written."""
MAX_CONNECTIONS = 8192
RESERVED_FILES = 512
"""Of the process's file descriptors: for units, the control plane, Ray and logs."""


def connections_allowed(open_files: int) -> int:
    """How many connections a process may hold that may open so many files."""
    return max(1, min(MAX_CONNECTIONS, open_files - RESERVED_FILES, open_files // 2))


class HttpConnection(HttpToolsProtocol):
    """Ends when no complete request head came in time, or when nobody reads what was written.

    How long a body may take is decided where it is read (app/web.py), and no other timer runs while an answer is being
    made. uvicorn itself waits for ever, and counts idle connections as work (its limit_concurrency).
    """

    head_timeout_s: ClassVar[float] = HEAD_TIMEOUT_S
    unread_timeout_s: ClassVar[float] = UNREAD_TIMEOUT_S
    max_connections: ClassVar[int] = connections_allowed(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _head_bytes: int | None = None
    """Of a request head that has begun and is not complete."""
    _last_request: bool = False
    """Whether another one came before its answer was complete: nothing is read any more but that the caller leaves."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections and not self._make_room():
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More is written than the kernel takes: the caller is slow, or reads nothing at all."""
        self._unread_timer = self.loop.call_later(self.unread_timeout_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._read()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._last_request:
            return
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self.send_400_response("")
        if self.quiet and self._head_timer is None:  # also while it sends what nobody reads any more
            self._await_head()

    def on_message_begin(self) -> None:
        if self._last_request or not self.quiet:
            # uvicorn would keep it and stop reading, and so not see the caller leave. After an answer that says, or
            # shows, that the connection ends, a client sends again what was not answered (RFC 9112, 9.3.2).
            self._last_request = True
            self.cycle.keep_alive = False
            return
        self._head_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._last_request:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        if not self._last_request:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._last_request:
            super().on_message_complete()

    def on_headers_complete(self) -> None:
        if self._last_request:
            return
        self._head_bytes = None
        self._head_came()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an answer in our form, unless that would land in another answer."""
        if self._last_request:
            return
        if self.quiet:
            body = json.dumps(BadRequest("The request is not valid HTTP, or its head is too long.").body()).encode()
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # close() would wait for a caller who does not read

    @property
    def quiet(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> bool:
        """End a connection that holds no request, so that those who only hold connections shut nobody out."""
        others = (one for one in self.connections if isinstance(one, HttpConnection) and one is not self)
        idle = next((one for one in others if one.quiet), None)
        if idle is None:
            return False
        self.connections.discard(idle)  # it tells of its end only in the loop's next round
        idle.transport.abort()
        return True

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_timed_out)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _read(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.quiet:
            self.transport.abort()
