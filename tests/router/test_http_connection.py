"""Connections of the router's own listener, over real sockets: who only holds one open loses it."""

import asyncio
import json
import socket
from collections.abc import Callable

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.router import http_server
from app.router.http_connection import (
    HEAD_LIMIT_BYTES,
    MAX_CONNECTIONS,
    UNREAD_TIMEOUT_S,
    HttpConnection,
    connections_allowed,
)
from app.router.http_server import server_config
from tests.router.units import WAIT_S

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
ServeWith = Callable[[uvicorn.Config], str]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


async def connect(url: str) -> Streams:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def the_end(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server ends the connection."""
    told = b""
    async with asyncio.timeout(WAIT_S):
        try:
            while part := await reader.read(65536):
                told += part
        except ConnectionError:
            pass
    return told


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpConnection, "head_timeout_s", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent", [b"", b"GET", HEAD[:-2], b"POST / HTTP/1.1\r\nx: 1\r\n"])
async def test_without_a_whole_head_a_connection_ends(serve_with: ServeWith, sent: bytes) -> None:
    reader, writer = await connect(serve_with(server_config(hello)))
    writer.write(sent)
    assert await the_end(reader) == b""
    writer.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("asked", "more"), [(HEAD, b"G"), (b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx", b"x")])
async def test_after_an_answer_too(serve_with: ServeWith, asked: bytes, more: bytes) -> None:
    reader, writer = await connect(serve_with(server_config(hello)))
    writer.write(asked)
    assert b"hello" in await reader.read(65536)
    writer.write(more)
    assert await the_end(reader) == b""  # long before KEEP_ALIVE_S
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_an_answer_may_take_longer_than_a_head(serve_with: ServeWith) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        async def parts():
            for _ in range(4):
                await asyncio.sleep(0.1)
                yield b"part"

        await Request(scope, receive).body()
        await StreamingResponse(parts())(scope, receive, send)

    async def body():
        for _ in range(3):
            await asyncio.sleep(0.1)
            yield b"x"

    async with httpx.AsyncClient(base_url=serve_with(server_config(slow)), trust_env=False) as http:
        for _ in range(2):  # the second one on the same connection
            assert (await http.post("/", content=body())).text == "part" * 4


async def test_what_is_no_http_is_refused_in_our_form(serve_with: ServeWith) -> None:
    url = serve_with(server_config(hello))
    endless = b"GET / HTTP/1.1\r\n" + b"x-long: 0123456789\r\n" * (HEAD_LIMIT_BYTES // 10)
    for sent in (b"what is this?\r\n\r\n", endless):
        reader, writer = await connect(url)
        writer.write(sent)
        head, _, told = (await the_end(reader)).partition(b"\r\n\r\n")
        if sent is not endless or head:  # a reset may overtake the answer to one that still sends
            assert head.startswith(b"HTTP/1.1 400 ")
            assert json.loads(told)["error"]["code"] == "bad_request"
        writer.close()


async def test_the_silent_make_room_for_those_who_ask(serve_with: ServeWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpConnection, "max_connections", 3)
    url = serve_with(server_config(hello))
    silent = [await connect(url) for _ in range(6)]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=WAIT_S) as http:
        assert (await http.get("/")).text == "hello"
    ended = [asyncio.create_task(the_end(reader)) for reader, _ in silent]
    done, left = await asyncio.wait(ended, timeout=0.5)
    assert len(done) >= 3
    for one in left:
        one.cancel()
    for _, writer in silent:
        writer.close()


async def test_connections_with_work_are_kept_and_the_next_is_refused(
    serve_with: ServeWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, go = asyncio.Semaphore(0), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        working.release()
        await go.wait()
        await hello(scope, receive, send)

    monkeypatch.setattr(HttpConnection, "max_connections", 2)
    url = serve_with(server_config(wait))
    busy = [await connect(url) for _ in range(2)]
    for _, writer in busy:
        writer.write(HEAD)
        await working.acquire()
    reader, writer = await connect(url)
    assert await the_end(reader) == b""
    go.set()
    for kept, _ in busy:
        assert b"hello" in await kept.read(65536)
    for one in (writer, *(writer for _, writer in busy)):
        one.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_who_reads_nothing_of_an_answer_loses_the_connection(
    serve_with: ServeWith, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    left = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not whole:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            if await Request(scope, receive).is_disconnected():
                left.set()
                return
        await send({"type": "http.response.body", "body": b"x" * (64 << 20)})

    monkeypatch.setattr(HttpConnection, "unread_timeout_s", 0.1)
    reader, writer = await connect(serve_with(server_config(endless)))
    writer.write(HEAD)
    async with asyncio.timeout(WAIT_S):
        if not whole:
            await left.wait()
        while not reader.at_eof() and reader.exception() is None:  # the kernel has some of it
            writer.write(HEAD)
            await asyncio.sleep(0.01)
    writer.close()


POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none"
SECOND = [HEAD, POST, HEAD[:-2], b"POST / HTTP/1.1\r\ncontent-length: 999999\r\n\r\n" + b"x" * 300_000, b"\xff" * 99]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("second", SECOND, ids=["get", "post", "begun", "large", "nonsense"])
async def test_who_leaves_is_seen_to_leave_also_with_a_second_request_sent(
    serve_with: ServeWith, second: bytes, together: bool
) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        assert await Request(scope, receive).body() == b"one"
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    _, writer = await connect(serve_with(server_config(wait)))
    writer.write(POST + second if together else POST)
    async with asyncio.timeout(WAIT_S):
        await begun.wait()
        if not together:
            writer.write(second)
            await writer.drain()
        writer.close()
    async with asyncio.timeout(1):
        await left.wait()


async def test_a_second_request_does_not_get_into_the_first_ones_answer(serve_with: ServeWith) -> None:
    begun, go, asked = asyncio.Event(), asyncio.Event(), list[bytes]()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(await Request(scope, receive).body())
        begun.set()
        await go.wait()
        await hello(scope, receive, send)

    reader, writer = await connect(serve_with(server_config(wait)))
    writer.write(POST)
    await begun.wait()
    writer.write(POST.replace(b"one", b"two"))
    await asyncio.sleep(0.05)  # it may come later too, and is then answered or not
    go.set()
    head, _, body = (await the_end(reader)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in head
    assert body == b"hello"
    assert asked == [b"one"]
    writer.close()


def test_file_descriptors_bound_connections() -> None:
    assert connections_allowed(1 << 20) == MAX_CONNECTIONS
    assert connections_allowed(2048) == 1024
    assert connections_allowed(1024) == 512
    assert connections_allowed(600) == 88


def test_the_kernel_ends_connections_that_nobody_reads_and_keeps_little_for_them() -> None:
    with http_server.listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            unread_ms = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            unsent_bytes = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert unread_ms == UNREAD_TIMEOUT_S * 1000
    assert unsent_bytes == http_server.UNSENT_BYTES
