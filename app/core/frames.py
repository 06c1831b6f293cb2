"""The framing on every direct socket: a 16-byte stream token, a kind, a length, the payload.

Engine processes write answers to routers in it, and units drive their engine process in it. Tokens are made
by the side that asks, are random, and are good for one stream.
"""

import secrets
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

TOKEN_BYTES = 16
PIECE_BYTES = 256 << 10
"""Longer answers are cut into pieces of this size, so that a listener can refuse anything longer."""
PART_LIMIT_BYTES = 8 << 20
"""Of what an engine gives at once: a whole answer, or an event of a stream. It is also what a router keeps of one."""
CALL_LIMIT_BYTES = 64 << 20
_HEADER = struct.Struct(f"!{TOKEN_BYTES}sBI")

NO_STREAM = bytes(TOKEN_BYTES)
"""The token of frames that belong to no stream."""


class Kind(IntEnum):
    """What a frame's payload is."""

    HEAD = 1  # engine -> router: JSON, status and content type of the answer, tokens of the prompt
    DATA = 2  # engine -> router: bytes of the answer's body
    END = 3  # engine -> router: nothing more; the answer is complete. JSON, its Tokens, or nothing
    FAIL = 4  # engine -> router: JSON, an error body, maybe `usage`; the answer broke off, or nobody wants it
    CALL = 10  # unit -> engine: a JSON line with router and request ID, then the request body
    ABORT = 11  # unit -> engine: nobody waits for this stream any more
    DONE = 12  # engine -> unit: JSON, how the stream ended
    ASK = 13  # unit -> engine: how are you?
    STATS = 14  # engine -> unit: JSON, an EngineStats
    READY = 20  # engine -> unit: JSON, the engine serves
    FAILED = 21  # engine -> unit: text, why the engine cannot start or died


_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One message."""

    token: bytes
    kind: Kind
    payload: bytes


class FramingError(ValueError):
    """The peer does not speak this framing: close the connection."""


def new_token() -> bytes:
    """A token that nobody can guess."""
    return secrets.token_bytes(TOKEN_BYTES)


def encode(token: bytes, kind: Kind, payload: bytes = b"") -> bytes:
    """The frame's bytes on the wire."""
    return _HEADER.pack(token, kind, len(payload)) + payload


class FrameReader:
    """Cuts a byte stream back into frames."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` bounds a payload, and so what a peer can make us keep."""
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Every frame that `data` completes. Raises FramingError on an unknown kind or an oversized payload."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            token, number, length = _HEADER.unpack_from(self._buffer, start)
            kind = _KINDS.get(number)
            if kind is None or length > self._limit_bytes:
                raise FramingError("not a frame")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            yield Frame(token, kind, bytes(self._buffer[start + _HEADER.size : end]))
            start = end
        del self._buffer[:start]
