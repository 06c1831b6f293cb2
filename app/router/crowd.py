"""How many requests a router has under way at once."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import Unavailable

MAX_REQUESTS = 4096
PROBES = ("/healthz", "/readyz")
"""A router that has much to do is alive."""


class Crowd:
    """ASGI middleware: turns requests away that are one too many. Raises Unavailable."""

    def __init__(self, app: ASGIApp, max_requests: int):
        self._app = app
        self._max_requests = max_requests
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self._running >= self._max_requests:
            raise Unavailable(f"This router has {self._max_requests} requests under way, and takes no more at once.")
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
