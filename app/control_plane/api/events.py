"""/platform/v1/events."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.pages import PageDep
from app.core.moments import UtcMoment
from app.core.records import Event
from app.core.texts import Line

router = APIRouter(prefix="/v1", tags=["events"])

Text = Annotated[Line | None, Query(max_length=128)]
Moment = Annotated[UtcMoment | None, Query()]


class Window:
    """Which of the things that happened to list; times as [since, until)."""

    def __init__(self, since: Moment = None, until: Moment = None, order: Literal["asc", "desc"] = "asc"):
        self.arguments: dict[str, Any] = {"since": since, "until": until, "newest_first": order == "desc"}


WindowDep = Annotated[Window, Depends()]


def _show(event: Event) -> dict[str, Any]:
    return {"object": "event", **event.model_dump(mode="json", exclude={"workspace"})}


def given(**filters: str | None) -> dict[str, str]:
    """The filters that were given."""
    return {name: value for name, value in filters.items() if value is not None}


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
