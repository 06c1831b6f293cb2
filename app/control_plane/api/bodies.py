"""How large a request to the control API may be. Routers have a bound of their own; Serve's proxy has none."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.web import bounded

BODY_LIMIT_BYTES = 1 << 20
"""Wishes are small."""


class BoundedBodies:
    """ASGI middleware: whoever reads the body gets TooLarge from it once it is too large."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = bounded(scope, receive, BODY_LIMIT_BYTES)
        await self._app(scope, receive, send)
