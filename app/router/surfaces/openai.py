"""The OpenAI surface: POST /v1/chat/completions, GET /v1/models and /v1/models/{model}."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.core.routing import Route as Endpoint
from app.router.admission import Admission
from app.router.chat import ChatCompletions
from app.router.directory import Directory
from app.router.unsupported import refusing

PREFIX = "/v1"
UNSUPPORTED = (
    "responses", "conversations", "completions", "embeddings", "assistants", "threads", "batches", "files", "uploads",
    "images", "audio", "videos", "moderations", "fine_tuning", "vector_stores", "realtime", "evals", "messages",
    "rerank", "score",
)  # fmt: skip
"""OpenAI's other APIs, and those that other servers have beside them; S2 has chat only."""


def routes(chat: ChatCompletions, directory: Directory, admission: Admission) -> list[Route]:
    """Paths below /v1."""
    models = Models(directory, admission)
    return [
        Route(f"{PREFIX}/models", models.all, methods=["GET"]),
        Route(f"{PREFIX}/models/{{model}}", models.one, methods=["GET"]),
        Route(f"{PREFIX}/chat/completions", chat, methods=["POST"]),
        *refusing(UNSUPPORTED, PREFIX, directory, admission),
    ]


class Models:
    """The endpoints that this key may call. Never touches a unit."""

    def __init__(self, directory: Directory, admission: Admission):
        self._directory = directory
        self._admission = admission

    async def all(self, request: Request) -> Response:
        """The list, oldest first."""
        table = self._directory.table
        seen = table.visible_to(self._admission.grant(request.scope, table))
        return JSONResponse({"object": "list", "data": [_model(endpoint) for endpoint in seen]})

    async def one(self, request: Request) -> Response:
        """One by its ID, or by its name where that is unique."""
        table = self._directory.table
        grant = self._admission.grant(request.scope, table)
        return JSONResponse(_model(table.route_for(request.path_params["model"], grant)))


def _model(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.endpoint_id,
        "object": "model",
        "created": int(endpoint.created_at.timestamp()),
        "owned_by": endpoint.workspace,
        "name": endpoint.name,
        "state": endpoint.state,
    }
