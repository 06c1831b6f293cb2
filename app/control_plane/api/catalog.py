"""/platform/v1/catalog."""

from typing import Any

from fastapi import APIRouter

from app.catalog.entries import CatalogEntry
from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.pages import PageDep
from app.core.errors import NotFound

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


def _show(entry: CatalogEntry) -> dict[str, Any]:
    return {"object": "catalog_entry", "id": entry.base_model, **entry.model_dump(mode="json")}


@router.get("")
def find(caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The base models, by name."""
    return page.of(platform.catalog.entries, _show, lambda entry: entry.base_model)


@router.get("/{base_model}")
def get(base_model: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One base model, by its name or an alias."""
    entry = platform.catalog.find(base_model)
    if entry is None:
        raise NotFound("There is no such base model in the catalogue.", "base_model")
    return _show(entry)
