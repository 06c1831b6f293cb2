"""/platform/v1/models."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.jobs import show as show_job
from app.control_plane.api.pages import PageDep, confirmed
from app.core.errors import InvalidField
from app.core.model_specs import ModelSpec
from app.core.records import Model, Version
from app.core.source_rules import check_source
from app.store.sources import own_prefix

router = APIRouter(prefix="/v1/models", tags=["models"])


def _show(model: Model) -> dict[str, Any]:
    spec = model.spec.model_dump(mode="json", exclude_none=True, by_alias=True) if model.spec else {}
    return {
        "object": "model",
        **model.model_dump(mode="json", exclude={"workspace", "spec", "findings"}),
        "source": spec.get("source"),
        "precision": spec.get("precision"),
        "mode": spec.get("mode"),
        "findings": [found.model_dump() for found in model.findings],
    }


def _show_version(version: Version) -> dict[str, Any]:
    return {"object": "version", **version.model_dump(mode="json", exclude={"prefix"})}


@router.post("", status_code=202)
def create(spec: Annotated[ModelSpec, Body()], caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """Bring weights: they are validated, copied, and become a model, whatever the folder contains."""
    if spec.source:
        check_source(spec.source, admin=caller.role == "admin", settings=platform.settings)
        if spec.mode == "reference" and own_prefix(spec.source, platform.settings) is None:
            raise InvalidField("mode reference needs a source in the platform's own object store.", "mode")
    return _show(platform.models.create(caller.workspace, spec))


@router.get("")
def find(caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's models, oldest first."""
    return page.of(platform.models.find(caller.workspace), _show)


@router.get("/{model_id}")
def get(model_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One model, by ID or name."""
    return _show(platform.models.get(caller.workspace, model_id))


@router.post("/{model_id}:retry", status_code=202)
def retry(model_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """Begin a failed upload again."""
    return _show(platform.models.retry(caller.workspace, model_id))


@router.delete("/{model_id}", status_code=202)
def delete(
    model_id: str, caller: Developer, platform: PlatformDep, confirm: Annotated[str, Query(max_length=16)] = ""
) -> dict[str, Any]:
    """Remove a model and its weights; cannot be undone."""
    confirmed(confirm)
    return _show(platform.models.delete(caller.workspace, model_id))


@router.get("/{model_id}/jobs")
def jobs(model_id: str, caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The jobs that worked on a model, oldest first."""
    model = platform.models.get(caller.workspace, model_id)
    return page.of(platform.jobs.of_model(model.id), show_job)


@router.get("/{model_id}/versions")
def versions(model_id: str, caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The precisions of a model."""
    return page.of(platform.models.versions(platform.models.get(caller.workspace, model_id)), _show_version)
