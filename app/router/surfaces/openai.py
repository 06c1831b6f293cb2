"""The OpenAI surface: POST /v1/chat/completions and GET /v1/models."""

import asyncio
import random
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.core.chat_rules import check_chat
from app.core.errors import PlatformError
from app.router.call import Call, Deadlines
from app.router.directory import Directory, choose
from app.router.stream import TokenListener
from app.web import error_event, header, read_body, request_id

STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class ChatCompletions:
    """The chat API as an ASGI application: bytes of the body in, bytes of the engine's answer out."""

    def __init__(self, directory: Directory, listener: TokenListener, deadlines: Deadlines, body_limit_bytes: int):
        self._directory = directory
        self._listener = listener
        self._deadlines = deadlines
        self._body_limit_bytes = body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        table = self._directory.table
        grant = table.grant_for(header(scope, "authorization"), datetime.now(UTC))
        body = await read_body(scope, receive, self._body_limit_bytes)
        request = check_chat(body)
        revision, application = choose(table.route_for(request.model, grant), random.random())
        call = Call(self._listener, self._deadlines)
        answer = asyncio.ensure_future(
            self._answer(call, application, revision, body, bool(request.stream), scope, send)
        )
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
        finally:
            leaving.cancel()
            answer.cancel()

    async def _answer(
        self, call: Call, application: str, revision: str, body: bytes, stream: bool, scope: Scope, send: Send
    ) -> None:
        try:
            await call.start(lambda: self._directory.handle(application), request_id(scope), body, streamed=stream)
            headers = [
                (b"content-type", call.content_type.encode()),
                (b"x-modelunit-revision", revision.encode()),
            ]
            if not stream:
                whole = b"".join([part async for part in call.parts()])
                headers.append((b"content-length", str(len(whole)).encode()))
                await send({"type": "http.response.start", "status": call.status, "headers": headers})
                await send({"type": "http.response.body", "body": whole})
                return
            await send({"type": "http.response.start", "status": call.status, "headers": headers + STREAM_HEADERS})
            try:
                async for part in call.parts():
                    async with asyncio.timeout(self._deadlines.between_tokens_s):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                tail = b""
            except PlatformError as error:
                tail = error_event(error)
            await send({"type": "http.response.body", "body": tail})
        finally:
            call.close()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Models:
    """GET /v1/models: the endpoints that this key may call. Never touches a unit."""

    def __init__(self, directory: Directory):
        self._directory = directory

    async def __call__(self, request: Request) -> Response:
        table = self._directory.table
        grant = table.grant_for(header(request.scope, "authorization"), datetime.now(UTC))
        data = [
            {
                "id": route.endpoint_id,
                "object": "model",
                "created": int(route.created_at.timestamp()),
                "owned_by": route.workspace,
                "name": route.name,
                "state": route.state,
            }
            for route in table.visible_to(grant)
        ]
        return JSONResponse({"object": "list", "data": data})
