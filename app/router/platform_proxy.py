"""Passes /platform on to the control plane, so that callers need one base URL.

The router listens by itself because Serve's proxy costs too much per token; the control plane stays behind
Serve's proxy, which this forwards to.
"""

import re
from urllib.parse import quote

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.core.errors import NotFound, Unavailable
from app.router.admission import Admission
from app.router.directory import Directory
from app.web import ROUTER_REQUEST_ID, header, request_id

_NOT_FORWARDED = {  # what belongs to one connection, and IDs: the router gives its own
    b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host", b"content-length",
    b"x-request-id", ROUTER_REQUEST_ID.encode(),
}  # fmt: skip
PREFIX = "/platform"
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
AWAY = "The control plane is not reachable; endpoints go on serving."
OPEN_PATHS = {"/platform/openapi.json"}
"""What strangers may read; they may send nothing there."""
TIMEOUT = httpx.Timeout(connect=5, read=300, write=60, pool=5)


class PlatformProxy:
    """An endpoint that forwards method, path, query, headers and body as they are."""

    def __init__(self, directory: Directory, admission: Admission, serve_proxy_url: str, body_limit_bytes: int):
        self._directory = directory
        self._admission = admission
        self._body_limit_bytes = body_limit_bytes
        self._client = httpx.AsyncClient(base_url=serve_proxy_url, timeout=TIMEOUT, trust_env=False)

    async def __call__(self, request: Request) -> Response:
        return await self.forward(request, request.scope["path"])

    async def forward(self, request: Request, path: str) -> Response:
        """Ask the control plane at `path`, which begins with PREFIX. Raises NotFound, Unauthorized, Unavailable."""
        if _ODD.search(path) or {".", ".."} & set(path.split("/")):
            raise NotFound("There is nothing at this path.")  # nothing that could leave /platform on Serve's proxy
        body = b""
        if path not in OPEN_PATHS or request.method not in ("GET", "HEAD"):
            # Before the body is read: strangers must not fill our memory.
            grant = self._admission.grant(request.scope, self._directory.table)
            body = await self._admission.body(request.scope, request.receive, grant, self._body_limit_bytes)
        headers = [(name, value) for name, value in request.headers.raw if name not in _NOT_FORWARDED]  # of any bytes
        headers.append((ROUTER_REQUEST_ID.encode(), request_id(request.scope).encode()))
        if "x-forwarded-host" not in request.headers and (host := header(request.scope, "host")):
            headers.append((b"x-forwarded-host", host.encode("latin-1")))  # by which callers reach us: snippets name it
        # Every '%' that is left belongs to the path itself: httpx would take it for the beginning of a code, and what
        # was refused above would be there again once Serve's proxy has decoded it.
        try:
            url = httpx.URL(path=quote(path), query=request.scope["query_string"])
        except httpx.InvalidURL:
            raise NotFound("There is nothing at an address of this length.") from None
        outgoing = self._client.build_request(request.method, url, headers=headers, content=body or None)
        try:
            answer = await self._client.send(outgoing, stream=True)
        except httpx.TransportError:
            raise Unavailable(AWAY) from None
        if answer.is_error and not answer.headers.get("content-type", "").startswith("application/json"):
            await answer.aclose()  # Serve's proxy itself speaks: its replica is gone
            raise Unavailable(AWAY)
        response = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose))
        told = [(name.lower(), value) for name, value in answer.headers.raw]
        response.raw_headers = [(name, value) for name, value in told if name not in _NOT_FORWARDED]
        return response
