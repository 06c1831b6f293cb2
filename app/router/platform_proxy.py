"""Passes /platform on to the control plane, so that callers need one base URL.

The router listens by itself because Serve's proxy costs too much per token; the control plane stays behind
Serve's proxy, which this forwards to.
"""

import re
from datetime import UTC, datetime

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.core.errors import NotFound, Unavailable
from app.router.directory import Directory
from app.web import read_body

_NOT_FORWARDED = {  # what belongs to one connection, and the ID that the router has given already
    "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length",
    "x-request-id",
}  # fmt: skip
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
OPEN_PATHS = {"/platform/openapi.json"}
TIMEOUT = httpx.Timeout(connect=5, read=300, write=60, pool=5)


class PlatformProxy:
    """An endpoint that forwards method, path, query, headers and body as they are."""

    def __init__(self, directory: Directory, serve_proxy_url: str, body_limit_bytes: int):
        self._directory = directory
        self._body_limit_bytes = body_limit_bytes
        self._client = httpx.AsyncClient(base_url=serve_proxy_url, timeout=TIMEOUT, trust_env=False)

    async def __call__(self, request: Request) -> Response:
        path = request.scope["path"]
        if _ODD.search(path) or {".", ".."} & set(path.split("/")):
            raise NotFound("There is nothing at this path.")  # nothing that could leave /platform on Serve's proxy
        if path not in OPEN_PATHS:  # before the body is read: strangers must not fill our memory
            self._directory.table.grant_for(request.headers.get("authorization"), datetime.now(UTC))
        headers = [(k, v) for k, v in request.headers.items() if k not in _NOT_FORWARDED]
        headers.append(("x-request-id", request.state.request_id))
        body = await read_body(request.scope, request.receive, self._body_limit_bytes)
        url = httpx.URL(path=path, query=request.scope["query_string"])
        outgoing = self._client.build_request(request.method, url, headers=headers, content=body or None)
        try:
            answer = await self._client.send(outgoing, stream=True)
        except httpx.TransportError:
            raise Unavailable("The control plane is not reachable; endpoints go on serving.") from None
        kept = {k: v for k, v in answer.headers.items() if k not in _NOT_FORWARDED}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))
