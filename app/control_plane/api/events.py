"""/platform/v1/events."""

from typing import Any

from fastapi import APIRouter

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.filters import Text, WindowDep, given
from app.control_plane.api.pages import PageDep
from app.core.records import Event

router = APIRouter(prefix="/v1", tags=["events"])


def _show(event: Event) -> dict[str, Any]:
    return {"object": "event", **event.model_dump(mode="json", exclude={"workspace"})}


@router.get("/events")
def find(
    caller: Developer,
    platform: PlatformDep,
    page: PageDep,
    window: WindowDep,
    subject: Text = None,
    kind: Text = None,
    actor: Text = None,
) -> dict[str, Any]:
    """What happened in the workspace, oldest first, or newest first with `order=desc`."""
    filters = given(subject=subject, kind=kind, actor=actor)
    return page.read(platform.events.find, _show, caller=caller, **filters, **window.arguments)


@router.get("/endpoints/{endpoint_id}/events")
def of_endpoint(
    endpoint_id: str,
    caller: Developer,
    platform: PlatformDep,
    page: PageDep,
    window: WindowDep,
    kind: Text = None,
    actor: Text = None,
) -> dict[str, Any]:
    """What happened to an endpoint, also to one that can be restored; oldest first, or newest with `order=desc`."""
    platform.endpoints.get(caller.workspace, endpoint_id, deleted=True)
    filters = given(subject=endpoint_id, kind=kind, actor=actor)
    return page.read(platform.events.find, _show, caller=caller, **filters, **window.arguments)
