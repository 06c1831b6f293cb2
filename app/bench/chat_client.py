"""Chats over bare sockets: on a machine that clients and servers share, a client that works measures itself."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60.0
"""Of one answer."""
_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Target:
    """Where chats are sent."""

    url: str
    key: str
    model: str

    def request(self, prompt: str, max_tokens: int, stream: bool) -> bytes:
        """The bytes of a whole HTTP request."""
        messages = [{"role": "user", "content": prompt}]
        body: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "stream": stream}
        content, address = json.dumps(body).encode(), urlsplit(self.url)
        head = (
            f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


class ChatClient:
    """One connection, kept between chats."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> bytes:
        """An answer's body, chunks and all. Raises RuntimeError unless it is a complete 200."""
        async with asyncio.timeout(TIMEOUT_S):
            self._writer.write(request)
            head = (await self._reader.readuntil(_END_OF_HEAD)).lower()
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(f"the answer was {head[:200].decode('latin-1')}")
            _, _, length = head.partition(b"content-length:")
            if length:
                return await self._reader.readexactly(int(length.split(b"\r\n", 1)[0]))
            parts = b""
            while not parts.endswith(_LAST_CHUNK):
                if not (part := await self._reader.read(1 << 16)):
                    raise RuntimeError("the answer broke off")
                parts += part
            return parts


@contextlib.asynccontextmanager
async def connected(target: Target, count: int) -> AsyncIterator[Sequence[ChatClient]]:
    """So many connections, closed in the end."""
    address = urlsplit(target.url)
    streams = [await asyncio.open_connection(address.hostname, address.port) for _ in range(count)]
    try:
        yield [ChatClient(reader, writer) for reader, writer in streams]
    finally:
        for _, writer in streams:
            writer.close()


async def requests_per_s(target: Target, request: bytes, callers: int, each: int) -> float:
    """With so many callers that ask so often each, one after the other."""
    async with connected(target, callers) as clients:

        async def call(client: ChatClient) -> None:
            for _ in range(each):
                await client.ask(request)

        began = time.perf_counter()
        await asyncio.gather(*map(call, clients))
        return callers * each / (time.perf_counter() - began)


async def tokens_streamed(target: Target, request: bytes, callers: int) -> int:
    """How many chunks with text all of them got, at once."""
    async with connected(target, callers) as clients:
        answers = await asyncio.gather(*(client.ask(request) for client in clients))
    return sum(answer.count(b'"delta"') for answer in answers)
