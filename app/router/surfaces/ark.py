"""The Ark surface: its SDK's base URL ends in /api/v3, and `model` is an endpoint ID (S2)."""

from starlette.routing import Route

from app.router.chat import ChatCompletions


def routes(chat: ChatCompletions) -> list[Route]:
    """Paths below /api/v3."""
    return [Route("/api/v3/chat/completions", chat, methods=["POST"])]
