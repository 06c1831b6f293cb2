"""The Ark surface: its SDK's base URL ends in /api/v3, and `model` is an endpoint ID (S2)."""

from starlette.routing import Route

from app.router.admission import Admission
from app.router.chat import ChatCompletions
from app.router.directory import Directory
from app.router.unsupported import refusing

PREFIX = "/api/v3"
UNSUPPORTED = ("responses", "context", "embeddings", "bots", "batch", "images", "contents", "tokenization", "files")
"""Ark's other APIs; S2 names the first two."""


def routes(chat: ChatCompletions, directory: Directory, admission: Admission) -> list[Route]:
    """Paths below /api/v3."""
    return [
        Route(f"{PREFIX}/chat/completions", chat, methods=["POST"]),
        *refusing(UNSUPPORTED, PREFIX, directory, admission),
    ]
