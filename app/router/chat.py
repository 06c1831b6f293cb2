"""Chat completions: bytes of the body in, bytes of the engine's answer out. The same for every surface."""

import asyncio
import random
from functools import partial

from starlette.types import Receive, Scope, Send

from app.core.chat_rules import AddressedChatRequest, ChatRequest, check_chat
from app.core.errors import InvalidField, NotFound, PlatformError
from app.core.routing import Grant, Route, RoutingTable, Target
from app.router.admission import Admission
from app.router.call import Call, Deadlines
from app.router.directory import Directory
from app.router.figures import CountedRequest, Figures
from app.router.stream import TokenListener
from app.web import error_event, read_body, request_id

ENDPOINT = "endpoint"
"""The parameter of a path that names the endpoint; where there is none, the body's `model` does."""
STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class ChatCompletions:
    """The chat API as an ASGI application."""

    def __init__(
        self,
        directory: Directory,
        listener: TokenListener,
        admission: Admission,
        figures: Figures,
        deadlines: Deadlines,
        body_limit_bytes: int,
    ):
        self._directory = directory
        self._listener = listener
        self._admission = admission
        self._figures = figures
        self._deadlines = deadlines
        self._body_limit_bytes = body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._figures.request() as counted:
            table = self._directory.table
            grant = self._admission.grant(scope, table)
            body = await read_body(scope, receive, self._body_limit_bytes)
            request, route = _understood(body, scope["path_params"].get(ENDPOINT), table, grant)
            counted.concerns(route.endpoint_id)
            self._admission.admit(scope, route, table)
            target = route.choose(random.random())
            call = Call(self._listener, self._deadlines)
            answer = asyncio.ensure_future(self._answer(call, target, body, bool(request.stream), counted, scope, send))
            leaving = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    answer.result()
            finally:
                leaving.cancel()
                answer.cancel()

    async def _answer(
        self,
        call: Call,
        target: Target,
        body: bytes,
        stream: bool,
        counted: CountedRequest,
        scope: Scope,
        send: Send,
    ) -> None:
        try:
            handle = partial(self._directory.handle, target.application)
            await call.start(handle, request_id(scope), body, streamed=stream)
            headers = [
                (b"content-type", call.content_type.encode()),
                (b"x-modelunit-revision", target.revision.encode()),
            ]
            if not stream:
                whole = b"".join([part async for part in call.parts()])
                headers.append((b"content-length", str(len(whole)).encode()))
                counted.answered(call.status, streamed=False)
                await send({"type": "http.response.start", "status": call.status, "headers": headers})
                await send({"type": "http.response.body", "body": whole})
                return
            counted.answered(call.status, streamed=True)
            await send({"type": "http.response.start", "status": call.status, "headers": headers + STREAM_HEADERS})
            try:
                async for part in call.parts():
                    async with asyncio.timeout(self._deadlines.between_tokens_s):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                tail = b""
            except PlatformError as error:
                counted.broke_off(error)
                tail = error_event(error)
            await send({"type": "http.response.body", "body": tail})
        finally:
            call.close()


def _understood(body: bytes, named: str | None, table: RoutingTable, grant: Grant) -> tuple[ChatRequest, Route]:
    """The request and the endpoint it is for; `named`: the endpoint in the path. Raises BadRequest and NotFound."""
    if named is None:
        request = check_chat(body)
        return request, table.route_for(request.model, grant)
    request = check_chat(body, AddressedChatRequest)
    try:
        route = table.route_for(named, grant)
    except NotFound:
        raise NotFound("No such endpoint: the path takes an endpoint ID like ep-... or its name.") from None
    if request.model not in ("", route.endpoint_id, route.name):
        raise InvalidField(
            f"model names something else than the path; allowed is to leave it out, or {route.endpoint_id}.", "model"
        )
    return request, route


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
