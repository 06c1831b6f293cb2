"""/platform/v1/audit, and the middleware that fills it."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.control_plane.api.access import Admin, PlatformDep
from app.control_plane.api.filters import Text, WindowDep, given
from app.control_plane.api.pages import PageDep
from app.control_plane.services.actor import Act, current_act
from app.control_plane.services.audit import Audit
from app.core.errors import PlatformError
from app.core.log_text import without_secrets
from app.core.records import AuditEntry
from app.web import CALLER_LEFT

router = APIRouter(prefix="/v1/audit", tags=["audit"])

MUTATIONS = {"POST", "PUT", "PATCH", "DELETE"}
SUBJECT_LIMIT = 128


class Audited:
    """ASGI middleware: each request that wants to change something is in the audit before its answer goes out."""

    def __init__(self, app: ASGIApp, audit: Audit):
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        act = current_act()
        if act is None or scope["method"] not in MUTATIONS:
            await self._app(scope, receive, send)
            return
        written = False

        async def write_then_send(message: Message) -> None:
            nonlocal written
            if message["type"] == "http.response.start" and not written:
                written = True
                await run_in_threadpool(self._write, scope, act, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, write_then_send)
        except Exception as error:
            if not written:
                status = error.status if isinstance(error, PlatformError) else 500
                await run_in_threadpool(self._write, scope, act, status)
            raise
        except asyncio.CancelledError:
            if not written:  # a cancelled request has nothing left to wait with, and others must not wait for it
                asyncio.get_running_loop().run_in_executor(None, self._write, scope, act, CALLER_LEFT)
            raise

    def _write(self, scope: Scope, act: Act, status: int) -> None:
        route = getattr(scope.get("route"), "path", " (no such path)")
        named = next((value for name, value in scope.get("path_params", {}).items() if name.endswith("_id")), "")
        subject = without_secrets(act.ids.get(named, named) or act.subject)  # somebody may paste a key for its ID
        self._audit.write(act, f"{scope['method']} /platform{route}", subject[:SUBJECT_LIMIT], status)


def _show(entry: AuditEntry) -> dict[str, Any]:
    return {"object": "audit_entry", **entry.model_dump(mode="json")}


@router.get("")
def find(
    caller: Admin,
    platform: PlatformDep,
    page: PageDep,
    window: WindowDep,
    actor: Text = None,
    action: Text = None,
    subject: Text = None,
    request_id: Text = None,
    workspace: Text = None,
) -> dict[str, Any]:
    """Who wanted to change what, oldest first, or newest first with `order=desc`.

    The platform's admins may name another `workspace`, also one that is gone.
    """
    filters = given(actor=actor, action=action, subject=subject, request_id=request_id, workspace=workspace)
    return page.read(platform.audit.find, _show, caller=caller, **filters, **window.arguments)
