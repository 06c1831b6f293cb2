"""/platform/v1/jobs."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from app.control_plane.api.access import Developer, PlatformDep, Unlimited
from app.control_plane.api.filters import given
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.log_stream import LIST_OR_TEXT, TEXT, Search, attached, followed, refuse_beside_follow
from app.control_plane.api.pages import Confirm, PageDep, confirmed
from app.core.job_logs import JobLine
from app.core.names import ModelName
from app.core.records import Job, JobState, JobType
from app.core.specs import Spec
from app.core.texts import Line

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobSpec(Spec):
    """A job that people ask for."""

    type: Literal["validate"]
    model: Annotated[Line, Field(min_length=1, max_length=128)]
    """A model's ID or name."""
    name: ModelName | None = None


def show(job: Job) -> dict[str, Any]:
    """A job as the API gives it."""
    return {"object": "job", **job.model_dump(mode="json", exclude={"workspace", "spec", "attempts"})}


@router.post("", status_code=202)
def create(spec: Annotated[JobSpec, Body()], caller: Unlimited, platform: PlatformDep, once: OnceDep) -> dict[str, Any]:
    """Start a job."""
    job = once.make(
        spec,
        lambda proof: platform.models.revalidate(caller.workspace, spec.model, spec.name or "", proof),
        lambda job_id: platform.jobs.get(caller.workspace, job_id),
    )
    return show(job)


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
    wanted = given(type=type, state=state, model_id=model_id or None)
    return page.of(platform.jobs.find(caller.workspace, **wanted), show)


@router.get("/{job_id}")
def get(job_id: str, caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """One job."""
    return show(platform.jobs.get(caller.workspace, job_id))


@router.get("/{job_id}/logs", response_model=None, responses=LIST_OR_TEXT)
def logs(
    job_id: str,
    caller: Unlimited,
    platform: PlatformDep,
    page: PageDep,
    search: Search = "",
    download: bool = False,
    follow: bool = False,
) -> Response:
    """What a job wrote, of a long log the last 4 MiB; where there is nothing, `note` says why.

    `search` finds lines that contain it, whatever the case. `download=true` gives the lines as one text, `follow=true`
    that and whatever comes until the job has ended, for an hour at most; now and then an empty line shows that the
    connection lives.
    """
    job = platform.jobs.get(caller.workspace, job_id)
    if follow:
        refuse_beside_follow(download=download)
        return followed(platform.job_logs.follower(job, search), caller, platform)
    found = platform.job_logs.read(job).matching(search)
    if download:
        text = "".join(f"{line.text}\n" for line in found.lines)
        return Response(text, media_type=TEXT, headers=attached(job.id))
    return JSONResponse(page.of(found.lines, _show_line, lambda line: str(line.number)) | {"note": found.note})


def _show_line(line: JobLine) -> dict[str, Any]:
    return {"object": "log_line", "id": str(line.number), "message": line.text}


@router.post("/{job_id}:stop", status_code=202)
def stop(job_id: str, caller: Unlimited, platform: PlatformDep) -> dict[str, Any]:
    """Stop a job; what it had published stays."""
    return show(platform.jobs.stop(caller.workspace, job_id))


@router.delete("/{job_id}", status_code=200)
def delete(job_id: str, caller: Unlimited, platform: PlatformDep, confirm: Confirm = "") -> dict[str, Any]:
    """Remove a finished job's record."""
    confirmed(confirm)
    platform.jobs.delete(caller.workspace, job_id)
    return {"object": "job", "id": job_id, "deleted": True}
