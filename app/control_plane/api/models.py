"""/platform/v1/models."""

from typing import Any

from fastapi import APIRouter

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.pages import PageDep
from app.core.records import Model

router = APIRouter(prefix="/v1/models", tags=["models"])


def _show(model: Model) -> dict[str, Any]:
    shown = model.model_dump(mode="json", exclude={"workspace"})
    return {"object": "model", **shown}


@router.get("")
def find(caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's models, oldest first."""
    return page.of(platform.models.find(caller.workspace), _show)


@router.get("/{model_id}")
def get(model_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One model, by ID or name."""
    return _show(platform.models.get(caller.workspace, model_id))
