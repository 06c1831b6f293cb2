"""/platform/v1/jobs."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.pages import PageDep, confirmed
from app.core.names import ModelName
from app.core.records import Job, JobState, JobType
from app.core.specs import Spec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobSpec(Spec):
    """A job that people ask for."""

    type: Literal["validate"]
    model: str
    """A model's ID or name."""
    name: ModelName | None = None


def show(job: Job) -> dict[str, Any]:
    """A job as the API gives it."""
    shown = job.model_dump(mode="json", exclude={"workspace", "spec", "attempts", "findings"})
    return {"object": "job", **shown, "findings": [found.model_dump() for found in job.findings]}


@router.post("", status_code=202)
def create(spec: Annotated[JobSpec, Body()], caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """Start a job."""
    return show(platform.models.revalidate(caller.workspace, spec.model, spec.name or ""))


@router.get("")
def find(
    caller: Developer,
    platform: PlatformDep,
    page: PageDep,
    type: Annotated[JobType | None, Query()] = None,
    state: Annotated[JobState | None, Query()] = None,
    model_id: Annotated[str | None, Query(max_length=128)] = None,
) -> dict[str, Any]:
    """The workspace's jobs, oldest first; filters: type, state, model_id."""
    wanted = {name: value for name, value in {"type": type, "state": state, "model_id": model_id}.items() if value}
    return page.of(platform.jobs.find(caller.workspace, **wanted), show)


@router.get("/{job_id}")
def get(job_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One job."""
    return show(platform.jobs.get(caller.workspace, job_id))


@router.post("/{job_id}:stop", status_code=202)
def stop(job_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """Stop a job; what it had published stays."""
    return show(platform.jobs.stop(caller.workspace, job_id))


@router.delete("/{job_id}", status_code=200)
def delete(
    job_id: str, caller: Developer, platform: PlatformDep, confirm: Annotated[str, Query(max_length=16)] = ""
) -> dict[str, Any]:
    """Remove a finished job's record."""
    confirmed(confirm)
    platform.jobs.delete(caller.workspace, job_id)
    return {"object": "job", "id": job_id, "deleted": True}
