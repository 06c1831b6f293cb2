"""/platform/v1/models."""

from typing import Annotated, Any

from fastapi import APIRouter, Body

from app.catalog.wishes import complete
from app.control_plane.api.access import Developer, PlatformDep, Unlimited
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.jobs import check_places
from app.control_plane.api.jobs import show as show_job
from app.control_plane.api.pages import Confirm, PageDep, confirmed
from app.control_plane.platform import Platform
from app.core.capabilities import calls, together
from app.core.compression_spec import VersionSpec
from app.core.errors import InvalidField
from app.core.keys import covers, is_platform_admin
from app.core.model_specs import ModelSpec
from app.core.records import ApiKey, Endpoint, Job, Model, Version
from app.core.source_rules import check_source
from app.store.sources import own_prefix

JOBS_SHOWN = 20

router = APIRouter(prefix="/v1/models", tags=["models"])


def _show(model: Model) -> dict[str, Any]:
    spec = model.spec.model_dump(mode="json", exclude_none=True, by_alias=True) if model.spec else {}
    return {
        "object": "model",
        **model.model_dump(mode="json", exclude={"workspace", "spec", "listing"}),
        "source": spec.get("source"),
        "precision": spec.get("precision"),
        "parameters": model.facts.parameters,
        "mode": spec.get("mode"),
    }


def _show_version(model: Model, version: Version, platform: Platform) -> dict[str, Any]:
    return {
        "object": "version",
        **version.model_dump(mode="json", exclude={"prefix", "facts"}),
        "size_bytes": platform.models.in_precision(model, version.precision).size_bytes,
        "runs_on": [
            {"machine_type": name, "servable": not reason, "reason": reason}
            for name, reason in platform.machines.runs_on(
                platform.models.in_precision(model, version.precision), version.precision
            ).items()
        ],
        "supports": platform.models.supports(model, version).model_dump(mode="json"),
        "calls": calls(model.origin, version.precision).model_dump(mode="json"),
    }


def _show_page(model: Model, caller: ApiKey, platform: Platform) -> dict[str, Any]:
    """With what people ask before they use or remove it: versions, what it is for, who has used it and who does."""
    versions = platform.models.versions(model)
    shown = _show(model)
    return {
        **shown,
        "precision": shown["precision"] or next((version.precision for version in versions), None),
        "supports": together(platform.models.supports(model, version) for version in versions).model_dump(mode="json"),
        "versions": [_show_version(model, version, platform) for version in versions],
        "jobs": [_show_run(job) for job in reversed(platform.jobs.of_model(model.id)[-JOBS_SHOWN:])],
        "endpoints": [_show_user(user) for user in platform.models.endpoints(model) if covers(caller, user.id)],
    }


def _show_run(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json", include={"id", "type", "name", "state", "reason", "created_at", "finished_at"})


def _show_user(endpoint: Endpoint) -> dict[str, Any]:
    spec = endpoint.spec
    return {"id": endpoint.id, "name": spec.name, "precision": spec.precision, "state": endpoint.state}


@router.post("", status_code=202)
def create(
    spec: Annotated[ModelSpec, Body()], caller: Unlimited, platform: PlatformDep, once: OnceDep
) -> dict[str, Any]:
    """Bring weights: they are validated, copied, and become a model, whatever the folder contains."""
    if spec.source:
        check_source(spec.source, admin=is_platform_admin(caller), settings=platform.settings)
    if spec.mode == "reference":
        source = complete(spec, platform.catalog).source
        if source is None or own_prefix(source, platform.settings) is None:
            raise InvalidField("mode reference needs a source in the platform's own object store.", "mode")
    model = once.make(
        spec,
        lambda proof: platform.models.create(caller.workspace, spec, proof),
        lambda model_id: platform.models.get(caller.workspace, model_id),
    )
    return _show(model)


@router.get("")
def find(caller: Developer, platform: PlatformDep, page: PageDep) -> dict[str, Any]:
    """The workspace's models, oldest first."""
    return page.of(platform.models.find(caller.workspace), _show)


@router.get("/{model_id}")
def get(model_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One model, by ID or name: with its versions, its last jobs, newest first, and the endpoints that name it."""
    return _show_page(platform.models.get(caller.workspace, model_id), caller, platform)


@router.post("/{model_id}:retry", status_code=202)
def retry(model_id: str, caller: Unlimited, platform: PlatformDep) -> dict[str, Any]:
    """Begin a failed upload again."""
    return _show(platform.preparation.retry(caller.workspace, model_id))


@router.delete("/{model_id}", status_code=202)
def delete(model_id: str, caller: Unlimited, platform: PlatformDep, confirm: Confirm = "") -> dict[str, Any]:
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
    model = platform.models.get(caller.workspace, model_id)
    return page.of(platform.models.versions(model), lambda version: _show_version(model, version, platform))


@router.post("/{model_id}/versions", status_code=202)
def create_version(
    model_id: str, wish: Annotated[VersionSpec, Body()], caller: Unlimited, platform: PlatformDep, once: OnceDep
) -> dict[str, Any]:
    """Make a version in another precision: a job of type quantize does it, whose ID is the version's `job_id`."""
    check_places(wish, {"calibration": wish.calibration}, caller, platform)
    job = once.make(
        wish,
        lambda proof: platform.compression.create(
            caller.workspace, platform.compression.spec_of(caller.workspace, model_id, wish), proof
        ),
        lambda job_id: platform.jobs.get(caller.workspace, job_id),
    )
    model = platform.models.get(caller.workspace, job.model_id or model_id)
    return _show_version(model, platform.models.of_precision(model, wish.precision), platform)


@router.get("/{model_id}/versions/{precision}")
def get_version(model_id: str, precision: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One version: how it was made, what that has cost (its quality card), and where it can run."""
    model = platform.models.get(caller.workspace, model_id)
    return _show_version(model, platform.models.of_precision(model, precision), platform)


@router.delete("/{model_id}/versions/{precision}", status_code=200)
def delete_version(
    model_id: str, precision: str, caller: Unlimited, platform: PlatformDep, confirm: Confirm = ""
) -> dict[str, Any]:
    """Remove a version that was made by compression, and its weights; cannot be undone."""
    confirmed(confirm)
    gone = platform.compression.delete_version(caller.workspace, model_id, precision)
    return {"object": "version", "id": gone.id, "deleted": True}
