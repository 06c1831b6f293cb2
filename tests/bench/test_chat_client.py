"""The client of the router's rows, against a server that says what it is told to say."""

import asyncio
import json

import pytest

from app.bench.chat_client import Target, connected, requests_per_s, tokens_streamed

CHUNK = b'data: {"choices": [{"delta": {}}]}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK) * 3 + b"0\r\n\r\n"
BROKEN = CHUNKED[:-5]


class Server:
    """Notes the bodies that come."""

    def __init__(self, answer: bytes):
        self.bodies: list[bytes] = []
        self.connections = 0
        self._answer = answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                for start in range(0, len(self._answer), 7):  # no piece is a whole line
                    writer.write(self._answer[start : start + 7])
                    await writer.drain()
                if self._answer is BROKEN:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


async def target_of(server: Server) -> Target:
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    return Target(f"http://127.0.0.1:{port}/chat", "key", "m")


async def test_a_connection_is_kept_between_answers() -> None:
    server = Server(WHOLE)
    target = await target_of(server)
    request = target.request("hi", 1, stream=False)
    assert await requests_per_s(target, request, callers=2, each=3) > 0
    assert (server.connections, len(server.bodies)) == (2, 6)
    assert json.loads(server.bodies[0])["max_tokens"] == 1
    async with connected(target, 1) as (client,):
        assert await client.ask(request) == b"hello"


async def test_tokens_of_all_streams_are_counted() -> None:
    server = Server(CHUNKED)
    target = await target_of(server)
    assert await tokens_streamed(target, target.request("hi", 3, stream=True), callers=4) == 12


@pytest.mark.parametrize("answer", [BROKEN, b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"], ids=["broken", "503"])
async def test_what_is_no_complete_answer_ends_the_benchmark(answer: bytes) -> None:
    target = await target_of(Server(answer))
    async with connected(target, 1) as (client,):
        with pytest.raises(RuntimeError):
            await client.ask(target.request("hi", 1, stream=True))
