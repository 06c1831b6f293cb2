"""Answers on their way from engines: the listener that engine processes connect to, and one Stream per request.

Tokens do not travel through Serve's streaming generators, which cost CPU for each token; see README, Performance.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from app.core.errors import DeadlineExceeded, PlatformError, TooLarge, TooManyRequests, Unavailable, UnitLost
from app.core.frames import PART_LIMIT_BYTES, PIECE_BYTES, Frame, FrameReader, FramingError, Kind, new_token
from app.core.usage import Tokens

BUFFER_LIMIT_BYTES = PART_LIMIT_BYTES
"""Of one answer that its caller does not read."""
BUFFERS_LIMIT_BYTES = 256 << 20
"""Of all of them together."""
READ_BYTES = 64 << 10
"""A read takes no part more once it has so much: what is taken is in nobody's count any longer."""
SETTLE_S = 10.0
"""How long an answer that nobody wants any more may take to tell its tokens: its engine hears at once of the abort."""
SETTLED_PERIOD_S = 0.01
MAX_SETTLING = 4096

GIVEN_UP = (DeadlineExceeded, TooLarge)
"""What a router ends an answer with while its engine may go on."""


class Buffers:
    """What all answers together hold that their callers have not read yet.

    No engine is held up for a reader. Where they hold too much, whoever holds the most is given up: those who read in
    time hold next to nothing, whatever the others do.
    """

    def __init__(self, streams: Mapping[bytes, "Stream"], limit_bytes: int):
        self._streams = streams
        self._limit_bytes = limit_bytes
        self._held_bytes = 0

    def hold(self, more_bytes: int) -> None:
        """So much more is there, or less."""
        self._held_bytes += more_bytes
        if self._held_bytes > self._limit_bytes:
            max(self._streams.values(), key=lambda stream: stream.size_bytes).give_up()


class Stream:
    """One answer. Its parts are put in by the listener and taken out by the request's coroutine."""

    def __init__(self, token: bytes, buffers: Buffers):
        self.token = token
        self._buffers = buffers
        self.content_type: str | None = None
        self.status = 0
        self._parts: list[bytes] = []
        self.size_bytes = 0
        """Of what has come and was not read."""
        self._ended = False
        self._error: PlatformError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._prompt = Tokens()
        self._passed = 0
        self.tokens: Tokens | None = None
        """All that the answer has taken, once its engine has told."""
        self.told_last = False
        """Whether its engine has said its last word, with or without tokens."""
        self._left = False
        self.on_give_up: Callable[[], object] | None = None
        """Called when the caller reads too slowly, which the request's own coroutine notices last."""

    def put(self, frame: Frame) -> None:
        """Take in what the engine sent."""
        if frame.kind in (Kind.END, Kind.FAIL):
            self._take_last_word(frame)
        if self._error or self._left:  # nothing more is passed on, and so nothing more is kept
            return
        if frame.kind == Kind.DATA:
            self._parts.append(frame.payload)
            self._passed += frame.payload.count(b"\n\n") - frame.payload.count(b'"content":""')
            self._hold(len(frame.payload))
            if self.size_bytes > BUFFER_LIMIT_BYTES:
                self.give_up()
        elif frame.kind == Kind.HEAD:
            head = json.loads(frame.payload)
            self.status, self.content_type = head["status"], head["content_type"]
            told = {name: head.get(name, 0) for name in ("prompt_tokens", "cached_tokens")}
            self._prompt = Tokens.model_validate(told)
        elif frame.kind == Kind.END:
            self._ended = True
        elif frame.kind == Kind.FAIL:
            self.fail(_told(json.loads(frame.payload)))
        self._wake()

    def _take_last_word(self, frame: Frame) -> None:
        self.told_last = True
        if frame.kind == Kind.FAIL:
            told = json.loads(frame.payload).get("usage")
            self.tokens = Tokens.model_validate(told) if told else None
        elif frame.payload:
            self.tokens = Tokens.model_validate_json(frame.payload)

    @property
    def passed(self) -> Tokens:
        """What is known of an answer whose engine cannot tell: the prompt's tokens, and the events with text that came.

        An event holds a token, or a few that were made close to one another: so many at the least.
        """
        return self._prompt.model_copy(update={"completion_tokens": max(0, self._passed)})

    @property
    def over(self) -> bool:
        """Whether no more can come: the engine has said its last word, or is lost, or never had the request."""
        return self.told_last or not (self._error is None or isinstance(self._error, GIVEN_UP))

    def leave(self) -> None:
        """Nobody reads on: drop what is there and what comes, but for the last word."""
        self._left = True
        self.drop()

    @property
    def error(self) -> PlatformError | None:
        """What the answer failed with."""
        return self._error

    def _hold(self, more_bytes: int) -> None:
        self.size_bytes += more_bytes
        self._buffers.hold(more_bytes)

    def give_up(self) -> None:
        """The caller reads too slowly: what is there and what would come is lost."""
        self.fail(TooLarge("The caller reads too slowly; the rest of the answer was given up."))
        self.drop()
        if self.on_give_up:
            self.on_give_up()

    def drop(self) -> None:
        """Give up what is there: nobody reads it."""
        self._parts.clear()
        self._hold(-self.size_bytes)

    @property
    def complete(self) -> bool:
        """Whether the engine has sent all of the answer."""
        return self._ended

    def fail(self, error: PlatformError) -> None:
        """End the answer early, unless it has ended."""
        if not self._ended and not self._left and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def ready(self, timeout_s: float) -> bool:
        """Wait until there is something to read, a failure or the end too; False after `timeout_s` or a nudge."""
        if not (self._parts or self._error or self._ended):
            self._waiter = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
        return bool(self._parts or self._error or self._ended)

    def nudge(self) -> None:
        """Let whoever waits in `ready` look around."""
        self._wake()

    async def read(self, timeout_s: float, waiting_for: str) -> bytes:
        """What has come since the last read, READ_BYTES or a part more; b"" at the end of a complete answer.

        Raises DeadlineExceeded when nothing comes for `timeout_s`, and whatever the answer failed with,
        after the bytes that came before the failure.
        """
        while not self._parts:
            if self._error:
                raise self._error
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, timeout_s, waiting_for)
            try:
                await self._waiter
            finally:
                timer.cancel()
        parts, size_bytes = 0, 0
        while parts < len(self._parts) and size_bytes < READ_BYTES:
            size_bytes += len(self._parts[parts])
            parts += 1
        taken, self._parts = self._parts[:parts], self._parts[parts:]
        self._hold(-size_bytes)
        return taken[0] if parts == 1 else b"".join(taken)

    def _expire(self, timeout_s: float, waiting_for: str) -> None:
        self.fail(DeadlineExceeded(f"Waited {timeout_s:g} s for {waiting_for}."))


def _told(failure: dict[str, Any]) -> PlatformError:
    """The error that an engine sent; 429 and 503 also say when to try again, and who was cancelled there is lost."""
    told = failure["body"]["error"]
    kind = {429: TooManyRequests, 503: Unavailable}.get(failure["status"], PlatformError)
    if told["code"] == UnitLost.code:
        kind = UnitLost
    error = kind(told["message"], told["param"], told["code"])
    error.status, error.type = failure["status"], told["type"]
    return error


Settled = Callable[[Stream], None]
"""Hears of a stream of which no more is to be known."""


class _Settling(NamedTuple):
    """A stream that nobody reads any more."""

    stream: Stream
    settled: Settled
    timer: asyncio.TimerHandle


class TokenListener:
    """The socket that engine processes write answers to. What comes with an unknown token is dropped."""

    def __init__(self, buffers_limit_bytes: int = BUFFERS_LIMIT_BYTES) -> None:
        self._streams: dict[bytes, Stream] = {}
        self._settling: dict[bytes, _Settling] = {}
        self._buffers = Buffers(self._streams, buffers_limit_bytes)
        self.address = ""

    async def start(self, host: str) -> None:
        """Listen on a free port of `host`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _EngineLink(self._streams, self._over), host, 0)
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def open(self) -> Stream:
        """A stream with a token of its own; close it in any case."""
        stream = Stream(new_token(), self._buffers)
        self._streams[stream.token] = stream
        return stream

    def close(self, stream: Stream) -> None:
        """Forget the stream; what still comes for it is dropped."""
        self._streams.pop(stream.token, None)
        stream.drop()

    def settle(self, stream: Stream, settled: Settled) -> None:
        """Close the stream once its engine has said what it took, or SETTLE_S later; then `settled` hears of it."""
        if stream.over:
            self.close(stream)
            settled(stream)
            return
        if len(self._settling) >= MAX_SETTLING:
            self._over(next(iter(self._settling.values())).stream)
        stream.leave()
        timer = asyncio.get_running_loop().call_later(SETTLE_S, self._over, stream)
        self._settling[stream.token] = _Settling(stream, settled, timer)

    async def settled(self) -> None:
        """Wait until nothing is left to settle: SETTLE_S at the most, if nothing new comes."""
        while self._settling:  # noqa: ASYNC110 (once in a life)
            await asyncio.sleep(SETTLED_PERIOD_S)

    def _over(self, stream: Stream) -> None:
        """Nothing more comes of this stream, or nobody waits for it any longer."""
        if settling := self._settling.pop(stream.token, None):
            settling.timer.cancel()
            self.close(stream)
            settling.settled(stream)

    def stop(self) -> None:
        """Accept no more connections, and wait for nothing more."""
        self._server.close()
        for settling in list(self._settling.values()):
            self._over(settling.stream)


class _EngineLink(asyncio.Protocol):
    """A connection from one engine process."""

    def __init__(self, streams: dict[bytes, Stream], over: Callable[[Stream], None]):
        self._streams = streams
        self._over = over
        self._frames = FrameReader(PIECE_BYTES)
        self._carried: set[bytes] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                stream = self._streams.get(frame.token)
                if stream is None:
                    self._carried.discard(frame.token)
                    continue
                self._carried.add(frame.token)
                stream.put(frame)
                if frame.kind in (Kind.END, Kind.FAIL):
                    self._carried.discard(frame.token)
                    self._over(stream)
        except (FramingError, ValueError, KeyError):
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        for token in self._carried:
            if stream := self._streams.get(token):
                stream.fail(UnitLost("The model unit stopped working before the answer was complete."))
                self._over(stream)
