"""Chat completions: bytes of the body in, bytes of the engine's answer out. The same for every surface."""

import asyncio
from functools import partial

from starlette.types import Receive, Scope, Send

from app.core.chat_rules import AddressedChatRequest, ChatRequest, check_chat
from app.core.chat_settling import settle
from app.core.errors import InvalidField, NotFound, PlatformError
from app.core.key_limits import reckoned_tokens
from app.core.routing import Grant, Route, RoutingTable
from app.router.admission import Admission
from app.router.call import Call, Deadlines
from app.router.directory import Directory
from app.router.figures import CountedRequest, Figures
from app.router.hold import Hold, wish_in
from app.router.reply import EVENT_STREAM, Reply
from app.router.stream import TokenListener
from app.router.usage import MeteredRequest, UsageMeter
from app.router.waking import Waking
from app.web import error_event, request_id

ENDPOINT = "endpoint"
"""The parameter of a path that names the endpoint; where there is none, the body's `model` does."""


class ChatCompletions:
    """The chat API as an ASGI application."""

    def __init__(
        self,
        directory: Directory,
        listener: TokenListener,
        admission: Admission,
        waking: Waking,
        figures: Figures,
        deadlines: Deadlines,
        body_limit_bytes: int,
        meter: UsageMeter,
    ):
        self._directory = directory
        self._listener = listener
        self._admission = admission
        self._waking = waking
        self._figures = figures
        self._deadlines = deadlines
        self._body_limit_bytes = body_limit_bytes
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._figures.request() as counted:
            sender = self._admission.grant(scope, self._directory.table)
            body = await self._admission.body(scope, receive, sender, self._body_limit_bytes)
            table = self._directory.table  # as it is now: the body may have taken a minute, and the key may be revoked
            grant = self._admission.grant(scope, table)
            streamed, route, tokens, body = understood(body, scope["path_params"].get(ENDPOINT), table, grant)
            counted.concerns(route.endpoint_id)
            wish = wish_in(scope)
            deadlines = self._deadlines
            limit = (deadlines.first_token_s, "the first token") if streamed else (deadlines.answer_s, "the answer")
            reply = Reply(send)
            with self._admission.admitted(scope, grant, route, table, len(body), tokens) as claim:
                hold = Hold(self._waking, route, wish, *limit)
                hold.beat = partial(_beat, reply, hold) if streamed else None
                metered = self._meter.request(request_id(scope), grant, route, claim.settle)
                answer = asyncio.ensure_future(self._answer(hold, body, streamed, counted, metered, reply))
                leaving = asyncio.ensure_future(left(receive))
                try:
                    await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    if answer.done():
                        answer.result()
                finally:
                    leaving.cancel()
                    answer.cancel()

    async def _answer(
        self, hold: Hold, body: bytes, streamed: bool, counted: CountedRequest, metered: MeteredRequest, reply: Reply
    ) -> None:
        call = Call(self._listener, self._deadlines, metered)
        try:
            with hold:
                await call.start(hold, metered.request_id, body)
            if not streamed:
                whole = b"".join([part async for part in call.parts()])
                counted.answered(call.status, streamed=False)
                await reply.whole(call.status, call.content_type, hold.revision, whole)
                return
            counted.answered(call.status, streamed=True)
            await reply.begin(call.status, call.content_type, hold.revision)
            async for part in call.parts():
                await reply.part(part)
            await reply.end()
        except PlatformError as error:
            if not reply.begun:
                raise
            counted.broke_off(error)
            await reply.end(error_event(error))
        finally:
            call.close()


async def _beat(reply: Reply, hold: Hold, comment: bytes) -> None:
    """Send a comment to a caller who waits for a stream; the status is settled with it."""
    await reply.begin(200, EVENT_STREAM, hold.revision)
    await reply.part(comment)


def understood(body: bytes, named: str | None, table: RoutingTable, grant: Grant) -> tuple[bool, Route, int, bytes]:
    """Whether the answer is to be a stream, the endpoint it is for, the tokens that it is reckoned to need, and the
    body as the endpoint's units are to get it.

    `named`: the endpoint in the path. No more of the request, for its parts take many times the memory of the body.
    Raises BadRequest and NotFound.
    """
    if named is None:
        request = check_chat(body)
        return _agreed(request, body, table.route_for(request.model, grant))
    request = check_chat(body, AddressedChatRequest)
    try:
        route = table.route_for(named, grant)
    except NotFound:
        raise NotFound("No such endpoint: the path takes an endpoint ID like ep-... or its name.") from None
    if request.model not in ("", route.endpoint_id, route.name, route.model):  # S4 names the model
        raise InvalidField(
            f"model names something else than the path; allowed is to leave it out, or {route.endpoint_id}.", "model"
        )
    return _agreed(request, body, route)


def _agreed(request: ChatRequest, body: bytes, route: Route) -> tuple[bool, Route, int, bytes]:
    settled = settle(request, body, route.chat)
    answer = request.max_completion_tokens or request.max_tokens or route.chat.defaults.get("max_tokens")
    return bool(request.stream), route, reckoned_tokens(len(body), answer, request.n), settled


async def left(receive: Receive) -> None:
    """Wait until the caller, who has sent the body, leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
