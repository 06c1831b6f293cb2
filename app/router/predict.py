"""Vertex's :predict, :rawPredict and :streamRawPredict: several chats in one call, or one under another name.

Each chat goes through the chat API as if it had come by itself, so it is checked, admitted, limited, counted and
answered by the same rules.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import Message, Receive, Scope, Send

from app.core.errors import InvalidField, PlatformError, TooLarge
from app.core.routing import Route
from app.core.vertex_rules import Instance, has_instances, instances, predictions, streaming, token_counts
from app.router.admission import Admission
from app.router.chat import ENDPOINT, ChatCompletions, left, understood
from app.router.directory import Directory
from app.router.figures import Figures
from app.router.reply import REVISION
from app.web import request_id


class Predict:
    """The three have their paths in common with the endpoint's chat, and the fields of its body."""

    def __init__(
        self,
        chat: ChatCompletions,
        directory: Directory,
        admission: Admission,
        figures: Figures,
        body_limit_bytes: int,
    ):
        self._chat = chat
        self._directory = directory
        self._admission = admission
        self._figures = figures
        self._body_limit_bytes = body_limit_bytes

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Every instance at once, each a request of its own; the first that fails ends the others and the call."""
        await self._predict(scope, receive, send, await self._read(scope, receive))

    async def raw(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The body decides: with instances like :predict, else a chat."""
        body = await self._read(scope, receive)
        if has_instances(body):
            await self._predict(scope, receive, send, body)
        else:
            await self._chat(scope, _after(body, receive), send)

    async def stream_raw(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A chat, or one instance, answered by a stream of a chat's events."""
        body = await self._read(scope, receive)
        if not has_instances(body):
            with self._refused():
                chat = streaming(body)
            await self._chat(scope, _after(chat, receive), send)
            return
        with self._refused():
            (instance,) = instances(body, at_most=1)
            with instance.named():
                chat = streaming(instance.chat)
        with instance.named():
            await self._chat(scope, _after(chat, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The body, of whoever has a key."""
        with self._refused():
            grant = self._admission.grant(scope, self._directory.table)
            return await self._admission.body(scope, receive, grant, self._body_limit_bytes)

    async def _predict(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        with self._refused():
            asked, route = self._understood(scope, body)
        leaving = asyncio.ensure_future(left(receive))
        chats = [asyncio.ensure_future(self._one(scope, instance, leaving)) for instance in asked]
        try:
            answers = await asyncio.gather(*chats)
        finally:
            for task in (leaving, *chats):
                task.cancel()
        if all(answer.body for answer in answers):  # else the caller has left
            await _reply(scope, send, route, asked, answers)

    def _understood(self, scope: Scope, body: bytes) -> tuple[list[Instance], Route]:
        """All instances, before any of them reaches a unit."""
        table = self._directory.table
        grant = self._admission.grant(scope, table)
        asked = []
        room = self._body_limit_bytes
        for instance in instances(body):
            with instance.named():
                streamed, route, *_ = understood(instance.chat, scope["path_params"][ENDPOINT], table, grant)
                if streamed:
                    raise InvalidField("stream is true; :streamRawPredict streams, and takes one instance.", "stream")
            room -= len(instance.chat)
            if room < 0:
                raise TooLarge(
                    f"The instances, each with the parameters, are larger than {self._body_limit_bytes} bytes together."
                )
            asked.append(instance)
        self._admission.require_together(scope, grant, route, table, len(asked), "instances")
        return asked, route

    async def _one(self, scope: Scope, instance: Instance, leaving: "asyncio.Future[None]") -> "_Answer":
        answer = _Answer()
        own = {"request_id": f"{request_id(scope)}-{instance.index}"}
        state = scope["state"] | own
        try:
            with instance.named():
                await self._chat({**scope, "state": state}, _after(instance.chat, _once(leaving)), answer.take)
        finally:
            scope["state"].update((name, value) for name, value in state.items() if name not in own)
        return answer

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Counts a call that is refused before it is a chat."""
        try:
            yield
        except PlatformError:
            with self._figures.request():
                raise


class _Answer:
    """What the chat API sent for one instance."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def take(self, message: Message) -> None:
        self.headers += message.get("headers", ())
        self.body += message.get("body", b"")


def _after(body: bytes, receive: Receive) -> Receive:
    """`receive` of a caller who has just sent this body."""
    sent = False

    async def receive_after() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body}

    return receive_after


def _once(leaving: "asyncio.Future[None]") -> Receive:
    async def receive() -> Message:
        await asyncio.wait({leaving})
        return {"type": "http.disconnect"}

    return receive


async def _reply(scope: Scope, send: Send, route: Route, asked: list[Instance], answers: list[_Answer]) -> None:
    told: list[dict[str, Any]] = [from_json(answer.body) for answer in answers]
    revision = dict(answers[-1].headers).get(REVISION, b"")
    path = scope["path_params"]
    body = to_json(
        {
            "predictions": predictions(asked, told),
            "deployedModelId": revision.decode(),
            "model": f"projects/{path['project']}/locations/{path['location']}/models/{route.model}",
            "modelDisplayName": route.name,
            "modelVersionId": route.precision,
            "metadata": token_counts(told),
        }
    )
    headers = [(name, value) for name, value in answers[-1].headers if name != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
