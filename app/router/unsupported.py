"""APIs that clients of each surface know and that are not served: a clear 400 instead of a path that is not there."""

from collections.abc import Iterable

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.core.errors import BadRequest
from app.router.admission import Admission
from app.router.directory import Directory


def refusing(names: Iterable[str], prefix: str, directory: Directory, admission: Admission) -> list[Route]:
    """Routes that refuse these APIs below `prefix`, whatever follows their names, and name the chat API there."""
    refused = _Unsupported(f"{prefix}/chat/completions", directory, admission)
    paths = [f"{prefix}/{name}{rest}" for name in names for rest in ("", "/{rest:path}")]
    return [Route(path, refused, include_in_schema=False) for path in paths]


class _Unsupported:
    """An ASGI application; every method."""

    def __init__(self, chat: str, directory: Directory, admission: Admission):
        self._chat = chat
        self._directory = directory
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._admission.grant(scope, self._directory.table)
        raise BadRequest(
            f"This API is not served here; chat is the one that is: POST {self._chat}.", code="unsupported_api"
        )
