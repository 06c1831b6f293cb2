"""A real control plane on a cluster of our own, behind a router that answers what it is told to."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.settings import Settings
from tests.control_plane.platforms import WAIT_S, FakeCluster, until

Fault = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


async def through(platform: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """No fault."""
    await platform(scope, receive, send)


async def away(platform: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """As a router answers while the control plane is replaced."""
    error = {"error": {"message": "The control plane cannot be reached."}}
    await JSONResponse(error, 503)(scope, receive, send)


async def lost_answer(platform: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The control plane does what it is asked to, and then the answer is lost."""

    async def nowhere(message: Message) -> None:
        pass

    await platform(scope, receive, nowhere)
    await away(platform, scope, receive, send)


class Here:
    """The platform of `settings`, listening."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.cluster = FakeCluster()
        self.platform = Platform(settings, self.cluster, ControlPlaneArgs(), routers_timeout_s=0)
        self.events: list[str] = []
        """What the next chat streams."""
        self.asked: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        """Of the next requests to the control plane, one each."""
        self.hanging = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._control = asgi(self.platform)
        routes = [
            Route("/healthz", lambda _: JSONResponse({"status": "ok"})),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Mount("/platform", self._faulty),
        ]
        config = uvicorn.Config(Starlette(routes=routes), lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))

    def open(self) -> None:
        self.platform.open()
        self._thread.start()
        until(lambda: self._server.started)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        self.platform.close()
        until(lambda: not any(loop.alive for loop in self.platform.loops))

    async def hangs(self, platform: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """A fault: says that it was asked, and does not answer."""
        self.hanging.set()
        await asyncio.sleep(WAIT_S)

    async def _faulty(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self.faults.pop(0) if self.faults else through
        await fault(self._control, scope, receive, send)

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        if not body.get("stream"):
            return JSONResponse({"choices": [{"message": {"content": "whole"}}]})

        async def stream() -> AsyncIterator[str]:
            for event in self.events:
                yield f"data: {event}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")
