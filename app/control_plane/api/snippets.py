"""/platform/v1/endpoints/{id}/snippet."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.addresses import reached_at
from app.core.snippets import Client, snippet

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


@router.get("/{endpoint_id}/snippet")
def get(
    endpoint_id: str,
    request: Request,
    caller: Developer,
    platform: PlatformDep,
    client: Annotated[Client, Query()] = "openai",
) -> dict[str, Any]:
    """Code that calls this endpoint, ready to run with a key in the environment."""
    endpoint = platform.endpoints.get(caller.workspace, endpoint_id)
    made = snippet(client, endpoint.id, endpoint.workspace, reached_at(request, platform.settings))
    return {"object": "snippet", **made.model_dump()}
