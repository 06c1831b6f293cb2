"""Model units as a router sees them: a handle to call, and bytes that arrive at its listener over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from app.core.errors import PlatformError
from app.core.frames import Kind, encode
from app.core.usage import Tokens

WAIT_S = 10


class Answer:
    """The engine's side of one call."""

    def __init__(self, token: bytes, writer: asyncio.StreamWriter, body: bytes):
        self._token = token
        self._writer = writer
        self.body = body

    async def head(self, content_type: str = "text/event-stream", status: int = 200, **prompt: int) -> None:
        told = {"status": status, "content_type": content_type, **prompt}
        await self._write(Kind.HEAD, json.dumps(told).encode())

    async def data(self, data: bytes) -> None:
        await self._write(Kind.DATA, data)

    async def end(self, tokens: Tokens | None = None) -> None:
        await self._write(Kind.END, tokens.model_dump_json().encode() if tokens else b"")

    async def fail(self, error: PlatformError, tokens: Tokens | None = None) -> None:
        told = {"status": error.status, "body": error.body(), "usage": tokens and tokens.model_dump()}
        await self._write(Kind.FAIL, json.dumps(told).encode())

    async def send(self, content_type: str, *parts: bytes) -> None:
        """A complete answer."""
        await self.head(content_type)
        for part in parts:
            await self.data(part)
        await self.end()

    async def _write(self, kind: Kind, payload: bytes) -> None:
        self._writer.write(encode(self._token, kind, payload))
        await self._writer.drain()


Script = Callable[[Answer], Awaitable[None]]
"""What a unit does with a call. When it returns or raises, so does the handle call, and the socket closes."""


class Response:
    """What a Serve handle call gives: awaitable, and cancelled only on request."""

    def __init__(self, running: asyncio.Event, work: Callable[[], Awaitable[None]]):
        self._replica_result_future = asyncio.ensure_future(running.wait())
        """As Ray has it: done once a unit has taken the call."""
        self._task = asyncio.ensure_future(self._run(work))
        self.cancelled = asyncio.Event()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._replica_result_future
        await work()

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self._task).__await__()

    def cancel(self) -> None:
        self.cancelled.set()
        self._replica_result_future.cancel()
        self._task.cancel()


class Units:
    """A handle whose calls follow the scripts in turn; the last one repeats. Calls wait until a unit runs."""

    def __init__(self, *scripts: Script):
        self._scripts = scripts
        self.responses: list[Response] = []
        self.bodies: list[bytes] = []
        self.request_ids: list[str] = []
        self.applications: list[str] = []
        """Whose handles were opened, in order."""
        self.wakes: list[Response] = []
        self.closes_links = True
        """Whether a call that has ended takes its connection with it; else that stays as an engine's does."""
        self.shut_down = 0
        """Handles that were given up."""
        self.running = asyncio.Event()
        """Whether a unit runs; cleared: the calls that come wait in the handle."""
        self.running.set()
        self.chat = self  # handle.chat.remote
        self.wake = SimpleNamespace(remote=self._wake)

    def handle(self, application: str) -> "Units":
        """For a directory: every application's handle leads here."""
        self.applications.append(application)
        return self

    def remote(self, token: bytes, router: str, request_id: str, body: bytes) -> Response:
        script = self._scripts[min(len(self.responses), len(self._scripts) - 1)]
        response = Response(self.running, partial(self._run, script, token, router, body))
        self.responses.append(response)
        self.bodies.append(body)
        self.request_ids.append(request_id)
        return response

    def _wake(self) -> Response:
        self.wakes.append(Response(self.running, self._woken))
        return self.wakes[-1]

    async def shutdown_async(self) -> None:
        self.shut_down += 1

    async def _woken(self) -> None:
        """The unit has nothing to do for it."""

    async def _run(self, script: Script, token: bytes, router: str, body: bytes) -> None:
        async with _connection(router, closes=self.closes_links) as writer:
            await script(Answer(token, writer, body))


@asynccontextmanager
async def _connection(router: str, *, closes: bool) -> AsyncIterator[asyncio.StreamWriter]:
    host, _, port = router.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        yield writer
    finally:
        if closes:
            writer.close()
        else:
            asyncio.get_running_loop().call_later(WAIT_S, writer.close)


async def until(check: Callable[[], Any]) -> None:
    """Wait for what tells nobody."""
    async with asyncio.timeout(WAIT_S):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def forever(_: Answer) -> None:
    """Never says anything."""
    await asyncio.Event().wait()
