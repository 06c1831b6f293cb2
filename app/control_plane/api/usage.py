"""/platform/v1/usage."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.filters import Moment, Text, given
from app.control_plane.api.pages import PageDep
from app.control_plane.services.usage import GroupBy, UsageGroup
from app.core.usage import Sums

router = APIRouter(prefix="/v1/usage", tags=["usage"])

By = Annotated[list[GroupBy], Query(min_length=1, max_length=5)]


def _sums(sums: Sums) -> dict[str, int]:
    return {**sums.model_dump(), "total_tokens": sums.prompt_tokens + sums.completion_tokens}


def _show(group: UsageGroup) -> dict[str, Any]:
    return {"object": "usage", **group.common, **_sums(group.sums)}


@router.get("")
def find(
    caller: Developer,
    platform: PlatformDep,
    page: PageDep,
    group_by: By = ["endpoint"],  # noqa: B006 (FastAPI copies it)
    since: Moment = None,
    until: Moment = None,
    endpoint: Text = None,
    key: Text = None,
    workspace: Text = None,
) -> dict[str, Any]:
    """What requests have taken, by one or several of day, hour (UTC), workspace, endpoint and key; and all together.

    A request that an engine worked on counts once, in the hour in which it ended. `partial_requests` are those whose
    engine did not live to tell: of their completion tokens it is known what was passed on. Hours count as a whole, the
    one that `since` lies in too. Endpoints and keys that are gone stay, by ID. The platform's admins may name another
    `workspace`, or `all` of them.
    """
    filters = given(endpoint=endpoint, key=key, workspace=workspace, since=since, until=until)
    rows = page.read(platform.usage.find, _show, caller=caller, by=group_by, **filters)
    return rows | {"totals": _sums(platform.usage.totals(caller, **filters))}
