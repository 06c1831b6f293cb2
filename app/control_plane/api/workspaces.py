"""/platform/v1/workspaces, for the platform's admins."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import Field

from app.control_plane.api import api_keys
from app.control_plane.api.access import PlatformAdmin, PlatformDep
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.pages import Confirm, PageDep, confirmed
from app.control_plane.services.idempotency import Proof
from app.core.names import ServiceName
from app.core.records import Workspace
from app.core.specs import Spec
from app.core.texts import Line

router = APIRouter(prefix="/v1/workspaces", tags=["workspaces"])


class NewWorkspace(Spec):
    """What to create."""

    name: ServiceName


class NewAdminKey(Spec):
    """What to issue."""

    description: Annotated[Line, Field(max_length=100)] = ""
    revoke_others: bool = False
    """End the workspace's other admin keys: they are lost, or in the wrong hands."""


def _show(workspace: Workspace) -> dict[str, Any]:
    return {"object": "workspace", **workspace.model_dump(mode="json")}


@router.post("", status_code=201)
def create(
    new: Annotated[NewWorkspace, Body()], caller: PlatformAdmin, platform: PlatformDep, once: OnceDep
) -> dict[str, Any]:
    """Create a workspace. `key` is its first admin key, in this answer and nowhere else, ever: null in a repeat's."""

    def make(proof: Proof) -> tuple[Workspace, str | None, str | None]:
        workspace, record, key = platform.workspaces.create(new.name, proof)
        return workspace, record.id, key

    workspace, key_id, key = once.make(new, make, lambda made: (platform.workspaces.get(made), None, None))
    return {**_show(workspace), "key_id": key_id, "key": key}


@router.get("")
def find(caller: PlatformAdmin, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """All workspaces, oldest first."""
    return page.of(platform.workspaces.find(), _show)


@router.get("/{workspace_id}")
def get(workspace_id: str, caller: PlatformAdmin, platform: PlatformDep) -> dict[str, Any]:
    """One workspace."""
    return _show(platform.workspaces.get(workspace_id))


@router.post("/{workspace_id}/api-keys", status_code=201)
def issue_key(
    workspace_id: str,
    new: Annotated[NewAdminKey, Body()],
    caller: PlatformAdmin,
    platform: PlatformDep,
    once: OnceDep,
) -> dict[str, Any]:
    """Issue an admin key of a workspace, such as one that has lost its own. `key` is in this answer only."""
    issue, alone = platform.workspaces.issue_admin_key, new.revoke_others
    record, key = once.make(
        new, lambda proof: issue(workspace_id, new.description, proof, alone=alone), api_keys.shown_already
    )
    return {**api_keys.show(record), "key": key}


@router.delete("/{workspace_id}", status_code=204)
def delete(workspace_id: str, caller: PlatformAdmin, platform: PlatformDep, confirm: Confirm = "") -> None:
    """Remove a workspace that has no endpoints, no models and no running jobs; cannot be undone."""
    confirmed(confirm)
    platform.workspaces.delete(workspace_id)
