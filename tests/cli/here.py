"""The control plane that commands talk to in tests, and commands that succeed."""

import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.settings import Settings
from tests.cli.runner import modelunit
from tests.control_plane.platforms import WAIT_S, FakeCluster, until


class Here:
    """A control plane on a cluster of our own, behind a router that answers what it is told to."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.cluster = FakeCluster()
        self.platform = Platform(settings, self.cluster, ControlPlaneArgs(), routers_timeout_s=0)
        self.events: list[str] = []
        """What the next chat streams."""
        self.asked: list[dict[str, Any]] = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        routes = [
            Route("/healthz", lambda _: JSONResponse({"status": "ok"})),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Mount("/platform", asgi(self.platform)),
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

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        if not body.get("stream"):
            return JSONResponse({"choices": [{"message": {"content": "whole"}}]})

        async def stream() -> AsyncIterator[str]:
            for event in self.events:
                yield f"data: {event}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")


def done(*arguments: str, typed: str | None = None) -> str:
    """What a command that succeeds prints."""
    result = modelunit(*arguments, typed=typed)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def told(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))
