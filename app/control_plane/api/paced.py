"""How often a caller may ask for changes."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.control_plane.api.audit import MUTATIONS
from app.control_plane.services.pace import Pace


class Paced:
    """ASGI middleware: refuses a key's changes when they come too fast, before anything is written down."""

    def __init__(self, app: ASGIApp, pace: Pace):
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope["state"].get("caller") if scope["type"] == "http" else None
        if caller is not None and scope["method"] in MUTATIONS:
            self._pace.take(caller.id)
        await self._app(scope, receive, send)
