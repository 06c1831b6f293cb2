"""/platform/v1/api-keys."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from app.control_plane.api.access import Admin, PlatformDep
from app.control_plane.api.pages import PageDep, confirmed
from app.core.records import ApiKey, Role
from app.core.specs import Spec

TAKEN_TIMEOUT_S = 1.0
"""How long an answer waits for the routers to know."""

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"])


class NewKey(Spec):
    """What to issue."""

    description: Annotated[str, Field(max_length=100)] = ""
    role: Role = "inference"


def _show(key: ApiKey) -> dict[str, Any]:
    return {"object": "api_key", **key.model_dump(mode="json", exclude={"workspace", "hash"})}


@router.post("", status_code=201)
def issue(new: NewKey, caller: Admin, platform: PlatformDep) -> dict[str, Any]:
    """Issue a key. `key` is in this answer and nowhere else, ever."""
    record, key = platform.keys.issue(caller.workspace, new.role, new.description)
    platform.tables.publish()
    platform.tables.wait_until_taken(TAKEN_TIMEOUT_S)
    return {**_show(record), "key": key}


@router.get("")
def find(caller: Admin, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's keys, without the keys themselves."""
    return page.of(platform.keys.find(caller.workspace), _show)


@router.delete("/{key_id}", status_code=204)
def revoke(
    key_id: str, caller: Admin, platform: PlatformDep, confirm: Annotated[str, Query(max_length=16)] = ""
) -> None:
    """Revoke a key: every router refuses it within a second."""
    confirmed(confirm)
    platform.keys.revoke(caller.workspace, key_id)
    platform.tables.publish()
    platform.tables.wait_until_taken(TAKEN_TIMEOUT_S)
