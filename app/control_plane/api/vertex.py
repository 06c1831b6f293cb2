"""/platform/v1beta1: deploying and looking at endpoints as Vertex AI has it (S4).

Project and location are free text.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request

from app.control_plane.api.access import Developer, PlatformDep, Unlimited
from app.control_plane.api.addresses import reached_at
from app.control_plane.api.filters import given
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.pages import Page
from app.control_plane.api.vertex_requests import DeployRequest, wish_of
from app.control_plane.api.vertex_resources import OPERATION, show_endpoint, show_operation
from app.core.errors import InvalidField, NotFound
from app.core.keys import covers, is_platform_admin
from app.core.texts import Line

LOCATION = "/v1beta1/projects/{project}/locations/{location}"

router = APIRouter(tags=["vertex"])


@router.post(LOCATION + ":deploy")
def deploy(
    project: str,
    location: str,
    body: Annotated[DeployRequest, Body()],
    caller: Unlimited,
    platform: PlatformDep,
    once: OnceDep,
) -> dict[str, Any]:
    """Make an endpoint of a folder of weights, or of a model; answers with an operation that names it."""
    place = _place(project, location)
    if body.destination not in (None, place):
        raise InvalidField(f"destination must be {place}, as the path says, or be left out.", "destination")
    wish = wish_of(body)
    endpoint = once.make(
        body,
        lambda proof: platform.deploys.deploy(caller.workspace, wish, admin=is_platform_admin(caller), proof=proof),
        lambda endpoint_id: platform.endpoints.get(caller.workspace, endpoint_id),
    )
    return show_operation(endpoint, place, platform)


@router.get(LOCATION + "/operations/{operation}")
def operation(project: str, location: str, operation: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """How far a deployment is."""
    endpoint_id = operation.removeprefix(OPERATION)
    if endpoint_id == operation or not covers(caller, endpoint_id):
        raise NotFound("There is no such operation.")
    endpoint = platform.endpoints.get(caller.workspace, endpoint_id)
    return show_operation(endpoint, _place(project, location), platform)


@router.get(LOCATION + "/endpoints")
def find(
    project: str,
    location: str,
    request: Request,
    caller: Developer,
    platform: PlatformDep,
    page_size: Annotated[int, Query(alias="pageSize", ge=1, le=1000)] = 100,
    page_token: Annotated[Line | None, Query(alias="pageToken", max_length=128)] = None,
) -> dict[str, Any]:
    """The workspace's endpoints, oldest first."""
    place, address = _place(project, location), reached_at(request, platform.settings)
    found = Page(page_size, page_token).read(
        platform.endpoints.find,
        lambda endpoint: show_endpoint(endpoint, place, address, platform),
        workspace=caller.workspace,
        **given(id=caller.endpoints),
    )
    return {"endpoints": found["data"], "nextPageToken": found["next_page_token"] or ""}


@router.get(LOCATION + "/endpoints/{endpoint_id}")
def get(
    project: str, location: str, endpoint_id: str, request: Request, caller: Developer, platform: PlatformDep
) -> dict[str, Any]:
    """One endpoint."""
    endpoint = platform.endpoints.get(caller.workspace, endpoint_id)
    return show_endpoint(endpoint, _place(project, location), reached_at(request, platform.settings), platform)


def _place(project: str, location: str) -> str:
    return f"projects/{project}/locations/{location}"
