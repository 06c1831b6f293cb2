"""/platform/v1/endpoints."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.pages import PageDep, confirmed
from app.control_plane.services.events import events_of
from app.core.records import Endpoint, Event
from app.core.specs import EndpointSpec

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


def show(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as the API gives it."""
    spec = endpoint.spec.model_dump(mode="json")
    return {
        "object": "endpoint",
        "id": endpoint.id,
        **spec,
        "state": endpoint.state,
        "reason": endpoint.reason,
        "units": {"running": endpoint.running_units, "target": endpoint.spec.scale.min_units},
        "revision": endpoint.revision,
        "traffic": {endpoint.revision: 100} if endpoint.revision else {},
        "generation": endpoint.generation,
        "observed_generation": endpoint.observed_generation,
        "managed_by": endpoint.managed_by,
        "created_at": endpoint.created_at.isoformat(),
    }


def _show_event(event: Event) -> dict[str, Any]:
    return {
        "object": "event",
        "id": event.id,
        "kind": event.kind,
        "message": event.message,
        "created_at": event.created_at.isoformat(),
    }


@router.post("", status_code=202)
def create(spec: Annotated[EndpointSpec, Body()], caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """Wish for an endpoint; it becomes healthy by and by."""
    return show(platform.endpoints.create(caller.workspace, spec))


@router.get("")
def find(caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's endpoints, oldest first."""
    return page.of(platform.endpoints.find(caller.workspace), show)


@router.get("/{endpoint_id}")
def get(endpoint_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One endpoint."""
    return show(platform.endpoints.get(caller.workspace, endpoint_id))


@router.delete("/{endpoint_id}", status_code=202)
def delete(
    endpoint_id: str, caller: Developer, platform: PlatformDep, confirm: Annotated[str, Query(max_length=16)] = ""
) -> dict[str, Any]:
    """Drain and remove an endpoint; cannot be undone."""
    confirmed(confirm)
    return show(platform.endpoints.delete(caller.workspace, endpoint_id))


@router.get("/{endpoint_id}/events")
def events(endpoint_id: str, caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """What happened to an endpoint, oldest first."""
    platform.endpoints.get(caller.workspace, endpoint_id)
    return page.of(events_of(platform.registry, endpoint_id), _show_event)
