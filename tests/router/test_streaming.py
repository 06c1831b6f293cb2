"""Streamed answers over a real connection: bytes, moments, breaking off and leaving."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from ray.exceptions import RayActorError

from app.core.errors import InternalError, TooLarge
from app.core.frames import PIECE_BYTES, Frame, Kind
from app.router.stream import BUFFER_LIMIT_BYTES, READ_BYTES, Stream, TokenListener
from tests.router.tables import KEY, MakeRouter
from tests.router.units import WAIT_S, Answer, Script, forever

CHAT = "/v1/chat/completions"
BODY: Any = {"model": "ep-1", "messages": [{"role": "user", "content": "hello"}], "stream": True}
DONE = b"data: [DONE]\n\n"
Serve = Callable[..., str]


def chunk(text: str) -> bytes:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "ep-1", "choices": [delta]}
    return f"data: {json.dumps(event)}\n\n".encode()


def client(url: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=WAIT_S, trust_env=False)


async def streamed(url: str) -> tuple[httpx.Response, bytes]:
    async with client(url) as http:
        answer = await http.post(CHAT, json=BODY)
        return answer, answer.content


def error_in(tail: bytes) -> Any:
    """The error event that a stream ends with."""
    event = tail.rpartition(b"data: ")[2]
    assert tail.endswith(b"\n\n")
    assert b"[DONE]" not in tail
    return json.loads(event)["error"]


async def test_every_byte_passes_unchanged(make_router: MakeRouter, serve: Serve) -> None:
    parts = [
        b": comment\r\n\r\n",
        "data: 巴黎".encode()[:-1],
        "黎".encode()[-1:],
        b"\n\n",
        b"\x00\xff",
        chunk("x"),
        DONE,
    ]

    async def script(answer: Answer) -> None:
        await answer.send("text/event-stream; charset=utf-8", *parts)

    answer, content = await streamed(serve((await make_router(script)).app))
    assert content == b"".join(parts)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-modelunit-revision"] == "r1"
    assert answer.headers["x-request-id"]


async def test_the_openai_client_sees_each_token_at_once(make_router: MakeRouter, serve: Serve) -> None:
    seen = asyncio.Event()

    async def script(answer: Answer) -> None:
        await answer.head()
        for word in ("one", "two", "three"):
            await answer.data(chunk(word))
            await seen.wait()  # nothing more is sent before the caller has this one
            seen.clear()
        await answer.data(DONE)
        await answer.end()

    url = serve((await make_router(script)).app)
    words = []
    async with asyncio.timeout(WAIT_S), client(url) as http:
        ai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=http, max_retries=0)
        async for event in await ai.chat.completions.create(**BODY):
            words.append(event.choices[0].delta.content)
            seen.set()
    assert words == ["one", "two", "three"]


async def failed_in_the_middle(answer: Answer) -> None:
    await answer.head()
    await answer.data(chunk("one"))
    await answer.fail(InternalError("The engine failed."))


async def dropped_in_the_middle(answer: Answer) -> None:
    await answer.head()
    await answer.data(chunk("one"))  # and the socket closes while the handle call goes on
    answer._writer.close()
    await asyncio.Event().wait()


async def died_in_the_middle(answer: Answer) -> None:
    await answer.head()
    await answer.data(chunk("one"))
    raise RayActorError


async def stalled_in_the_middle(answer: Answer) -> None:
    await answer.head()
    await answer.data(chunk("one"))
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (failed_in_the_middle, "internal_error"),
        (dropped_in_the_middle, "unit_lost"),
        (died_in_the_middle, "unit_lost"),
        (stalled_in_the_middle, "deadline_exceeded"),
    ],
)
async def test_trouble_after_the_first_byte_is_an_error_event(
    make_router: MakeRouter, serve: Serve, script: Script, code: str
) -> None:
    router = await make_router(script, between_tokens_timeout_s=0.5)
    answer, content = await streamed(serve(router.app))
    assert answer.status_code == 200
    assert content.startswith(chunk("one"))
    assert error_in(content)["code"] == code
    assert len(router.units.responses) == 1  # nothing is tried again once something was sent


async def test_the_openai_client_raises_on_an_error_event(make_router: MakeRouter, serve: Serve) -> None:
    url = serve((await make_router(failed_in_the_middle)).app)
    async with client(url) as http:
        ai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=http, max_retries=0)
        stream = await ai.chat.completions.create(**BODY)
        assert (await anext(stream)).choices[0].delta.content == "one"
        with pytest.raises(openai.APIError, match="The engine failed"):
            await anext(stream)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_who_leaves_before_the_first_byte_cancels_the_work(
    make_router: MakeRouter, serve: Serve, stream: bool
) -> None:
    called = asyncio.Event()

    async def script(answer: Answer) -> None:
        called.set()
        await forever(answer)

    router = await make_router(script)
    async with asyncio.timeout(WAIT_S), client(serve(router.app)) as http:
        asking = asyncio.create_task(http.post(CHAT, json=BODY | {"stream": stream}))
        await called.wait()
        asking.cancel()
        await router.units.responses[0].cancelled.wait()


async def test_a_caller_who_leaves_in_mid_stream_cancels_the_work(make_router: MakeRouter, serve: Serve) -> None:
    router = await make_router(stalled_in_the_middle)
    async with asyncio.timeout(WAIT_S), client(serve(router.app)) as http:
        async with http.stream("POST", CHAT, json=BODY) as answer:
            assert await anext(answer.aiter_raw()) == chunk("one")
        await router.units.responses[0].cancelled.wait()


async def test_what_a_slow_reader_leaves_unread_is_bounded(make_router: MakeRouter, serve: Serve) -> None:
    pieces = 0

    async def script(answer: Answer) -> None:
        nonlocal pieces
        await answer.head()
        while True:
            await answer.data(b"x" * PIECE_BYTES)  # the engine is never held up by one reader
            pieces += 1

    router = await make_router(script)
    async with asyncio.timeout(30), client(serve(router.app)) as http, http.stream("POST", CHAT, json=BODY) as answer:
        await router.units.responses[0].cancelled.wait()  # and makes nothing more for one who does not read it
        assert pieces >= BUFFER_LIMIT_BYTES // PIECE_BYTES
        size, tail = 0, b""
        async for part in answer.aiter_raw():
            size += len(part)
            tail = (tail + part)[-1000:]
    assert size < 2 * BUFFER_LIMIT_BYTES
    assert "too slowly" in error_in(tail)["message"]


def data(stream: Stream, size_bytes: int) -> Frame:
    return Frame(stream.token, Kind.DATA, b"x" * size_bytes)


async def read(stream: Stream) -> int:
    return len(await stream.read(WAIT_S, "bytes"))


async def test_who_holds_the_most_is_given_up_and_those_who_read_in_time_never() -> None:
    listener = TokenListener(buffers_limit_bytes=1000)
    reader = listener.open()
    given_up = []
    for number in range(100):  # one after the other, as large as they may be
        slow = listener.open()
        slow.on_give_up = partial(given_up.append, number)
        for _ in range(9):
            slow.put(data(slow, 90))
        reader.put(data(reader, 100))
        assert await read(reader) == 100
    assert given_up == list(range(99))  # and what they held was free for the next
    slow.put(data(slow, 200))
    with pytest.raises(TooLarge):
        await read(slow)


async def test_what_was_read_or_is_closed_is_free_for_others() -> None:
    listener = TokenListener(buffers_limit_bytes=1000)
    for _ in range(10):
        left, kept = listener.open(), listener.open()
        for stream in (left, kept):
            stream.put(data(stream, 300))
        listener.close(left)
        assert await read(kept) == 300
        listener.close(kept)


async def test_a_read_takes_a_bounded_part_of_what_is_there() -> None:
    stream = TokenListener().open()
    sizes = [1000, READ_BYTES, 10, READ_BYTES - 10, 7]
    for size in sizes:
        stream.put(data(stream, size))
    assert [await read(stream) for _ in range(3)] == [sum(sizes[:2]), sum(sizes[2:4]), 7]
