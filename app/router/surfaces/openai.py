"""The OpenAI surface: POST /v1/chat/completions and GET /v1/models."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

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
        Route(f"{PREFIX}/models", models.__call__, methods=["GET"]),
        Route(f"{PREFIX}/chat/completions", chat, methods=["POST"]),
        *refusing(UNSUPPORTED, PREFIX, directory, admission),
    ]


class Models:
    """GET /v1/models: the endpoints that this key may call. Never touches a unit."""

    def __init__(self, directory: Directory, admission: Admission):
        self._directory = directory
        self._admission = admission

    async def __call__(self, request: Request) -> Response:
        table = self._directory.table
        grant = self._admission.grant(request.scope, table)
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
