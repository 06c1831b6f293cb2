"""The unit's end of its engine process."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from app.core.errors import EngineStartError, UnitGone, UnitLost
from app.core.frames import NO_STREAM, PIECE_BYTES, FrameReader, Kind, encode
from app.core.reports import EngineStats
from app.unit import engine_host
from app.unit.engine import EngineDied, EngineLaunch

HOST_TIMEOUT_S = 180.0
SILENCE_ALLOWED_S = 10.0
"""After this the engine process is asked to say something."""
SILENCE_LIMIT_S = 30.0
"""How long it may then take: its own loop does no model's work, and answers in seconds while its core is busy."""


class EngineClient(asyncio.Protocol):
    """Starts one engine process and passes calls to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard_at = clock()
        self._asked_at: float | None = None
        """Since when nothing was heard of it though it was asked."""
        self._frames = FrameReader(PIECE_BYTES)
        self._calls: dict[bytes, asyncio.Future[str]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stats: asyncio.Future[EngineStats] | None = None
        self._tells_stats = False
        self._process: asyncio.Transport
        self.pid = 0
        self.died = asyncio.Event()
        self.cause = "The engine process ended without a word."

    @classmethod
    async def start(
        cls, launch: EngineLaunch, run_dir: Path, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> "EngineClient":
        """An engine that is ready to serve.

        Raises EngineStartError with the engine's own last words, or when `timeout_s` have passed.
        """
        try:
            connection = await asyncio.to_thread(engine_host.connect, run_dir, HOST_TIMEOUT_S)
        except TimeoutError as error:
            raise EngineStartError(str(error)) from None
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        client = cls(clock)
        await loop.create_unix_connection(lambda: client, sock=connection)
        client._process.write(launch.model_dump_json().encode() + b"\n")
        try:
            async with asyncio.timeout(timeout_s):
                await client._ready
        except asyncio.CancelledError:
            client.close()
            raise
        except TimeoutError:
            client.close()
            raise EngineStartError(f"the engine was not ready after {timeout_s:.0f} s") from None
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard_at, self._asked_at = self._clock(), None
        for frame in self._frames.feed(data):
            if frame.kind == Kind.DONE and (call := self._calls.get(frame.token)) and not call.done():
                call.set_result(json.loads(frame.payload)["outcome"])
            elif frame.kind == Kind.READY:
                ready = json.loads(frame.payload)
                self.pid, self._tells_stats = ready["pid"], ready.get("tells_stats", False)
                self._ready.set_result(None)
            elif frame.kind == Kind.STATS:
                if self._stats is not None and not self._stats.done():
                    self._stats.set_result(EngineStats.model_validate_json(frame.payload))
            elif frame.kind == Kind.FAILED:
                self.cause = frame.payload.decode()
                if self._ready.done():
                    self.died.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.died.set()
        if not self._ready.done():
            self._ready.set_exception(EngineStartError(self.cause))
        for call in self._calls.values():
            if not call.done():
                call.set_result("engine_died")

    async def chat(self, token: bytes, router: str, request_id: str, body: bytes) -> str:
        """Have the engine answer `body` to the router at `router` (host:port); returns how it ended.

        Cancelling aborts the engine's work. Raises UnitLost when the engine died or cannot reach the router.
        """
        if self.died.is_set():
            raise UnitGone("The model unit stopped working.")
        call = self._calls[token] = asyncio.get_running_loop().create_future()
        header = json.dumps({"router": router, "request_id": request_id}).encode()
        self._process.write(encode(token, Kind.CALL, header + b"\n" + body))
        try:
            outcome = await call
        except asyncio.CancelledError:
            self._process.write(encode(token, Kind.ABORT))
            raise
        finally:
            self._calls.pop(token, None)
        if outcome in ("engine_died", "router_unreachable"):
            raise UnitLost("The model unit stopped working.")
        return str(outcome)

    async def stats(self, timeout_s: float) -> EngineStats:
        """What the engine has done and how it is now. Raises TimeoutError, also when the engine has died.

        Whoever asks while another waits gets the same answer.
        """
        # A host from before an upgrade would take the question for nonsense and hang up.
        if not self._tells_stats or self.died.is_set():
            raise TimeoutError
        if self._stats is None or self._stats.done():
            self._stats = asyncio.get_running_loop().create_future()
            self._process.write(encode(NO_STREAM, Kind.ASK))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._stats)
        except TimeoutError:
            self._stats = None  # the next one asks again
            raise

    @property
    def asked(self) -> bool:
        """Whether it was asked to say something after a silence, and has not."""
        return self._asked_at is not None

    async def check_health(self) -> None:
        """Raises EngineDied once the engine process or its core has died.

        A process that says nothing for long, though asked, is killed: what its loop hangs in, it would hang in for
        ever, with whatever it holds.
        """
        if self.died.is_set() or self._process.is_closing():
            raise EngineDied(self.cause)
        if not self._tells_stats:
            return
        now = self._clock()
        if self._asked_at is None:
            if now - self._heard_at > SILENCE_ALLOWED_S:
                self._asked_at = now
                self._process.write(encode(NO_STREAM, Kind.ASK))
        elif now - self._asked_at > SILENCE_LIMIT_S:
            self.cause = f"The engine process said nothing for {SILENCE_LIMIT_S:.0f} s though it was asked."
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise EngineDied(self.cause)

    def close(self) -> None:
        """End the engine process: it goes when its unit's socket closes."""
        self._process.close()
