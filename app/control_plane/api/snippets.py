"""/platform/v1/endpoints/{id}/snippet."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.services.snippets import Client, base_url, snippet

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
    # The routers tell by which address they were reached; our own Host is that of Serve's proxy.
    url = base_url(platform.settings, request.headers.get("x-forwarded-host"), request.headers.get("x-forwarded-proto"))
    return {"object": "snippet", **snippet(client, endpoint, url).model_dump()}
