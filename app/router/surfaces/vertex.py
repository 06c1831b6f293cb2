"""The Vertex surface (S4): the path names the endpoint. Project and location are free text.

Chat and predictions are answered here; deploying and looking at endpoints is the control plane's, which has the same
paths below /platform.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import NotFound
from app.router.chat import ENDPOINT, ChatCompletions
from app.router.platform_proxy import PREFIX, PlatformProxy
from app.router.predict import Predict

LOCATION = "/v1beta1/projects/{project}/locations/{location}"
THE_ENDPOINT = f"{LOCATION}/endpoints/{{{ENDPOINT}}}"


def routes(chat: ChatCompletions, predict: Predict, platform: PlatformProxy) -> list[Route]:
    """Paths below /v1beta1."""

    async def forward(request: Request) -> Response:
        return await platform.forward(request, PREFIX + request.scope["path"])

    async def other_verb(_: Request) -> Response:
        raise NotFound("An endpoint takes POST :predict, :rawPredict and :streamRawPredict, and no such thing.")

    return [
        Route(f"{THE_ENDPOINT}/chat/completions", chat, methods=["POST"]),
        Route(f"{THE_ENDPOINT}:predict", _App(predict.predict), methods=["POST"]),
        Route(f"{THE_ENDPOINT}:rawPredict", _App(predict.raw), methods=["POST"]),
        Route(f"{THE_ENDPOINT}:streamRawPredict", _App(predict.stream_raw), methods=["POST"]),
        # No name has a colon: what has one is not for the control plane.
        Route(f"{THE_ENDPOINT}:{{verb}}", other_verb, methods=["GET", "POST"], include_in_schema=False),
        Route(f"{LOCATION}:deploy", forward, methods=["POST"]),
        Route(f"{LOCATION}/endpoints", forward, methods=["GET"]),
        Route(THE_ENDPOINT, forward, methods=["GET"]),
        Route(f"{LOCATION}/operations/{{operation}}", forward, methods=["GET"]),
    ]


class _App:
    """An ASGI application that starlette does not take for a function of a request."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
