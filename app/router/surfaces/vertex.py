"""The Vertex surface (S4): the path names the endpoint. Project and location are free text.

Chat is answered here; deploying and looking at endpoints is the control plane's, which has the same paths
below /platform.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.router.chat import ENDPOINT, ChatCompletions
from app.router.platform_proxy import PREFIX, PlatformProxy

LOCATION = "/v1beta1/projects/{project}/locations/{location}"


def routes(chat: ChatCompletions, platform: PlatformProxy) -> list[Route]:
    """Paths below /v1beta1."""

    async def forward(request: Request) -> Response:
        return await platform.forward(request, PREFIX + request.scope["path"])

    return [
        Route(f"{LOCATION}/endpoints/{{{ENDPOINT}}}/chat/completions", chat, methods=["POST"]),
        Route(f"{LOCATION}:deploy", forward, methods=["POST"]),
        Route(f"{LOCATION}/endpoints", forward, methods=["GET"]),
        Route(f"{LOCATION}/endpoints/{{{ENDPOINT}}}", forward, methods=["GET"]),
        Route(f"{LOCATION}/operations/{{operation}}", forward, methods=["GET"]),
    ]
