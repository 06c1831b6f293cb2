"""What every HTTP surface shares: the request ID, and the one place that renders errors."""

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import BadRequest, InternalError, NotFound, PlatformError, TooLarge

BODY_TIMEOUT_S = 60.0
CALLER_LEFT = 499
"""The usual number for a request whose caller did not wait for the answer: nobody gets it, and what was wanted may be
done."""
ROUTER_REQUEST_ID = "x-modelunit-request-id"
"""By which a router tells the control plane the ID of what it passes on; from its callers it never takes one."""
_REQUEST_ID = re.compile(r"req-[0-9a-f]{24}")

log = logging.getLogger("ray.serve")


def header(scope: Scope, name: str) -> str | None:
    """A request header's value, by its lower-case name."""
    wanted = name.encode("latin-1")
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), None)


def request_id(scope: Scope) -> str:
    """The ID of this request; also in the response's x-request-id and in our logs."""
    return str(scope["state"]["request_id"])


def answer_with(scope: Scope, headers: Iterable[tuple[str, str]]) -> None:
    """Whatever the answer to this request will be, it has these headers too."""
    scope["state"]["headers"] = [(name.encode(), value.encode()) for name, value in headers]


class ErrorBoundary:
    """ASGI middleware: gives each request an ID and turns whatever is raised into an answer.

    What a caller calls a request is nobody's business but the caller's: two may give the same ID, to an engine that has
    both under way, and an operator would find the one for the other.
    """

    def __init__(self, app: ASGIApp, *, behind_router: bool = False):
        """`behind_router`: only routers of ours reach this application, and the ID that one has given stays."""
        self._app = app
        self._behind_router = behind_router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, ROUTER_REQUEST_ID) if self._behind_router else None
        identity = given if given and _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = identity
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(b"x-request-id", identity.encode()), *scope["state"].get("headers", ())]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if not isinstance(error, PlatformError):
                log.exception("request %s failed unexpectedly", identity)
                error = InternalError(f"Internal error; the operator finds it in the log as {identity}.")
            if started:
                raise
            await error_response(error)(scope, receive, send_with_id)


def error_response(error: PlatformError) -> Response:
    """The HTTP answer for an error, as OpenAI's clients read it."""
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(json.dumps(error.body()), error.status, headers, "application/json")


def error_event(error: PlatformError) -> bytes:
    """The last event of a stream that broke off; no [DONE] follows it."""
    return f"data: {json.dumps(error.body())}\n\n".encode()


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405 in our form."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, PlatformError):  # FastAPI's own words for whatever stops it from reading a body
        return error_response(error.__cause__)
    if error.status_code == 405:
        refused = BadRequest(f"{request.method} is not allowed here.", code="method_not_allowed")
        refused.status = 405
        return error_response(refused)
    if error.status_code == 404:
        return error_response(NotFound(f"There is nothing at {request.method} {request.url.path[:200]}."))
    return error_response(BadRequest("The request cannot be read."))


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {HTTPException: on_http_exception}


def bounded(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """`receive` for a request whose body must stay below a size and come in time.

    What it returns raises TooLarge as soon as it is clear, before reading on, and BadRequest after BODY_TIMEOUT_S.
    """
    deadline: float | None = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
    too_large = TooLarge(f"The body is larger than {limit_bytes} bytes.")
    declared = header(scope, "content-length")
    known_too_large = declared is not None and declared.isdigit() and int(declared) > limit_bytes
    size = 0

    async def receive_bounded() -> Message:
        nonlocal size, deadline
        if known_too_large:
            raise too_large
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BadRequest(f"The body was not complete after {BODY_TIMEOUT_S:.0f} s.") from None
        size += len(message.get("body", b""))
        if size > limit_bytes:
            raise too_large
        if not message.get("more_body"):
            deadline = None  # from here on it only tells that the caller leaves
        return message

    return receive_bounded


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole request body. Raises TooLarge and BadRequest as `bounded` does."""
    receive = bounded(scope, receive, limit_bytes)
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The caller left before the body was complete.")
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)
