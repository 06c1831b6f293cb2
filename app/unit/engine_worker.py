"""The engine process: runs one engine for one unit, and writes answers straight to the routers.

Its parent is the engine host; its unit talks to it over the socket it was given. When that socket closes, the
unit is gone and the process ends.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import traceback
from pathlib import Path
from typing import cast

import uvloop

from app.core.errors import InternalError, PlatformError, TooLarge, UnitLost
from app.core.frames import CALL_LIMIT_BYTES, NO_STREAM, PART_LIMIT_BYTES, PIECE_BYTES, Frame, FrameReader, Kind, encode
from app.core.usage import Tokens
from app.unit.engine import Engine, EngineDied, EngineLaunch, Head
from app.unit.last_words import last_words

HEALTH_PERIOD_S = 1.0
CONNECT_TIMEOUT_S = 5.0
LINK_BUFFER_LIMIT_BYTES = 64 << 20
"""A router that lets more than this pile up is stuck; its streams are given up."""
DRAIN_TIMEOUT_S = 30.0
"""One that takes nothing of a large part for so long is stuck too."""

log = logging.getLogger(__name__)


def run(unit: socket.socket, launch: EngineLaunch) -> None:
    """Serve until the unit goes away. Does not return before."""
    uvloop.run(_Worker(unit, launch).run())


async def _start(launch: EngineLaunch) -> Engine:
    if launch.kind == "simulated":
        from app.unit.simulated_engine import SimulatedEngine  # noqa: PLC0415 (only where a test asks for it)

        return await SimulatedEngine.start(launch)
    from app.unit.vllm_engine import VLLMEngine  # noqa: PLC0415 (ten seconds, already paid by the host)

    return await VLLMEngine.start(launch)


class _Link(asyncio.Protocol):
    """The connection to one router; uvloop gathers the writes of one loop turn into one system call."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.transport: asyncio.Transport
        self._drained = asyncio.Event()
        self._drained.set()
        self._one_large_part = asyncio.Lock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        for task in self.tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    async def send_data(self, token: bytes, part: bytes) -> None:
        """Send a part of an answer; a large one no faster than the router takes it, for others share the link.

        Raises TooLarge.
        """
        if len(part) <= PIECE_BYTES:
            self.send(token, Kind.DATA, part)
            return
        if len(part) > PART_LIMIT_BYTES:
            raise _too_large()
        async with self._one_large_part:
            for start in range(0, len(part), PIECE_BYTES):
                self.send(token, Kind.DATA, part[start : start + PIECE_BYTES])
                try:
                    async with asyncio.timeout(DRAIN_TIMEOUT_S):
                        await self._drained.wait()
                except TimeoutError:
                    self.transport.abort()

    def send(self, token: bytes, kind: Kind, payload: bytes) -> None:
        if self.transport.get_write_buffer_size() > LINK_BUFFER_LIMIT_BYTES:
            self.transport.abort()
        if not self.transport.is_closing():
            self.transport.write(encode(token, kind, payload))


class _Worker(asyncio.Protocol):
    """Carries out what the unit asks."""

    def __init__(self, unit: socket.socket, launch: EngineLaunch):
        self._socket = unit
        self._launch = launch
        self._frames = FrameReader(CALL_LIMIT_BYTES)
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._links: dict[str, asyncio.Task[_Link]] = {}
        self._stats: asyncio.Task[None] | None = None
        self._engine: Engine
        self._unit: asyncio.Transport
        self._unit_gone = asyncio.Event()
        self._suspicion = asyncio.Event()
        """Set when there is a reason to look at the engine's health at once."""

    async def run(self) -> None:
        self._unit, _ = await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._socket)
        starting = asyncio.create_task(_start(self._launch))
        leaving = asyncio.create_task(self._unit_gone.wait())
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return  # the process ends, and with it whatever the start is stuck in
        leaving.cancel()
        try:
            self._engine = starting.result()
        except Exception as error:
            log.exception("the engine could not start")
            self._tell(NO_STREAM, Kind.FAILED, last_words(error, Path(self._launch.log_file)).encode())
            await asyncio.sleep(0.2)  # let the words out
            return
        self._tell(NO_STREAM, Kind.READY, json.dumps({"pid": os.getpid(), "tells_stats": True}).encode())
        while not self._unit_gone.is_set():
            try:
                await self._engine.check_health()
            except EngineDied as error:
                self._tell(NO_STREAM, Kind.FAILED, error.message.encode())
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._suspicion.wait(), HEALTH_PERIOD_S)
            self._suspicion.clear()
        await asyncio.sleep(0.2)
        self._engine.close()

    def _tell(self, token: bytes, kind: Kind, payload: bytes) -> None:
        self._unit.write(encode(token, kind, payload))

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            if frame.kind == Kind.CALL:
                task = asyncio.create_task(self._call(frame))
                self._tasks[frame.token] = task
            elif frame.kind == Kind.ABORT and frame.token in self._tasks:
                # Not before it has begun: a task that never ran could not say how it ended.
                asyncio.get_running_loop().call_soon(self._tasks[frame.token].cancel)
            elif frame.kind == Kind.ASK and (self._stats is None or self._stats.done()):
                self._stats = asyncio.create_task(self._tell_stats())

    async def _tell_stats(self) -> None:
        self._tell(NO_STREAM, Kind.STATS, (await self._engine.stats()).model_dump_json().encode())

    def connection_lost(self, _: Exception | None) -> None:
        self._unit_gone.set()
        self._suspicion.set()

    async def _link(self, router: str) -> _Link:
        task = self._links.get(router)
        if task is None or (task.done() and (task.exception() or task.result().transport.is_closing())):
            task = self._links[router] = asyncio.create_task(_connect(router))
        return await asyncio.shield(task)

    async def _call(self, frame: Frame) -> None:
        """Answer one request; the unit hears how it ended in any case."""
        line, _, body = frame.payload.partition(b"\n")
        header = json.loads(line)
        outcome: dict[str, object] = {"outcome": "aborted"}
        try:
            link = await self._link(header["router"])
            task = asyncio.current_task()
            assert task
            link.tasks.add(task)
            task.add_done_callback(link.tasks.discard)
            outcome = await self._answer(frame.token, body, header["request_id"], link)
        except OSError:
            outcome = {"outcome": "router_unreachable"}
        finally:
            self._tasks.pop(frame.token, None)
            self._tell(frame.token, Kind.DONE, json.dumps(outcome).encode())

    async def _answer(self, token: bytes, body: bytes, request_id: str, link: _Link) -> dict[str, object]:
        """The router hears in any case what the answer has taken, but from a dead engine."""
        taken: list[Tokens] = []
        try:
            async with contextlib.aclosing(self._engine.chat(body, request_id, taken.append)) as parts:
                async for part in parts:
                    if isinstance(part, Head):
                        link.send(token, Kind.HEAD, part.model_dump_json().encode())
                    else:
                        await link.send_data(token, part)
            link.send(token, Kind.END, taken[0].model_dump_json().encode() if taken else b"")
            return {"outcome": "complete"}
        except EngineDied:
            self._suspicion.set()
            return {"outcome": "engine_died"}  # the router may try another unit, so nothing is written to it here
        except asyncio.CancelledError:
            _fail(link, token, UnitLost("The request was cancelled."), taken)
            raise
        except PlatformError as error:
            if error.status >= 500:
                _log_failure(request_id, error.__cause__ or error)
            failure = error
        except Exception as error:
            _log_failure(request_id, error)
            failure = InternalError("The engine failed.")
        _fail(link, token, failure, taken)
        return {"outcome": "failed"}


def _fail(link: _Link, token: bytes, failure: PlatformError, taken: list[Tokens]) -> None:
    told = {"status": failure.status, "body": failure.body(), "usage": taken[0].model_dump() if taken else None}
    link.send(token, Kind.FAIL, json.dumps(told).encode())


def _too_large() -> TooLarge:
    message = f"The answer is longer than {PART_LIMIT_BYTES >> 20} MiB: ask for less (n, logprobs), or for a stream."
    return TooLarge(message, code="answer_too_large")


def _log_failure(request_id: str, error: BaseException) -> None:
    """Where it failed and with what kind of error, without the error's text: that may hold a prompt."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request %s failed with %s\n%s", request_id, type(error).__name__, frames)


async def _connect(router: str) -> _Link:
    host, _, port = router.rpartition(":")
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, link = await asyncio.get_running_loop().create_connection(_Link, host, int(port))
    return link
