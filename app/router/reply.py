"""What goes out to one caller."""

from starlette.types import Send

STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
EVENT_STREAM = "text/event-stream"
REVISION = b"x-modelunit-revision"


class Reply:
    """A status and headers once, then bytes. Each waits until the caller has read most of what went before."""

    def __init__(self, send: Send):
        self._send = send
        self.begun = False
        """Whether there is a status already: what goes wrong from here on cannot have one."""

    async def whole(self, status: int, content_type: str, revision: str, body: bytes) -> None:
        """All of an answer that is not streamed."""
        headers = [*_headers(content_type, revision), (b"content-length", str(len(body)).encode())]
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, content_type: str, revision: str) -> None:
        """The head of a stream, unless a comment has gone out before it."""
        if not self.begun:
            self.begun = True
            headers = _headers(content_type, revision) + STREAM_HEADERS
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def part(self, part: bytes) -> None:
        """Some more bytes of a stream."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, tail: bytes = b"") -> None:
        """The last bytes of a stream."""
        await self._send({"type": "http.response.body", "body": tail})


def _headers(content_type: str, revision: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", content_type.encode()), *([(REVISION, revision.encode())] if revision else [])]
