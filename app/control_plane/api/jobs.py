"""/platform/v1/jobs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from pydantic import Discriminator, Field, Tag
from starlette.responses import JSONResponse, Response

from app.control_plane.api.access import Developer, PlatformDep, Unlimited
from app.control_plane.api.filters import given
from app.control_plane.api.idempotency import OnceDep
from app.control_plane.api.log_stream import LIST_OR_TEXT, TEXT, Search, attached, followed, refuse_beside_follow
from app.control_plane.api.pages import Confirm, PageDep, confirmed
from app.control_plane.platform import Platform
from app.control_plane.services.idempotency import Proof
from app.core.compression_estimate import CompressionEstimateSpec
from app.core.compression_spec import CompressionWish, QuantizeSpec
from app.core.job_logs import JobLine
from app.core.jobs import LONG, long_task
from app.core.keys import is_platform_admin
from app.core.model_specs import Source
from app.core.names import ModelName
from app.core.records import ApiKey, Job, JobState, JobType
from app.core.source_rules import check_source, check_target
from app.core.specs import Spec
from app.core.texts import Line
from app.core.tuning_estimate import EstimateSpec
from app.core.tuning_spec import TuningSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobSpec(Spec):
    """A job that people ask for."""

    type: Literal["validate"]
    model: Annotated[Line, Field(min_length=1, max_length=128)]
    """A model's ID or name."""
    name: ModelName | None = None


AnySpec = JobSpec | TuningSpec | QuantizeSpec


def _kind(body: Any) -> str:
    """Of an estimate: a training's, where none is named."""
    kind = body.get("type", "finetune") if isinstance(body, dict) else getattr(body, "type", "finetune")
    return kind if isinstance(kind, str) else ""


AnyEstimate = Annotated[
    Annotated[EstimateSpec, Tag("finetune")] | Annotated[CompressionEstimateSpec, Tag("quantize")],
    Discriminator(_kind),
]


def show(job: Job) -> dict[str, Any]:
    """A job as the API gives it; of a long one also what was asked for, as `spec`."""
    shown = job.model_dump(mode="json", exclude={"workspace", "spec", "attempts", "run"})
    return {"object": "job", **shown, "spec": job.spec.get("spec"), "machine_type": _machine_type(job)}


def _machine_type(job: Job) -> str | None:
    return long_task(job).machine.name if job.type in LONG else None


@router.post("", status_code=202)
def create(
    spec: Annotated[AnySpec, Body(discriminator="type")], caller: Unlimited, platform: PlatformDep, once: OnceDep
) -> dict[str, Any]:
    """Start a job: fine-tune a model, compress one, or look at its weights once more."""
    if isinstance(spec, TuningSpec):
        check_places(spec, {"dataset": spec.dataset}, caller, platform)
    elif isinstance(spec, QuantizeSpec):
        check_places(spec, {"calibration": spec.calibration}, caller, platform)
    job = once.make(
        spec,
        lambda proof: _make(spec, caller.workspace, platform, proof),
        lambda job_id: platform.jobs.get(caller.workspace, job_id),
    )
    return show(job)


def _make(spec: AnySpec, workspace: str, platform: Platform, proof: Proof) -> Job:
    if isinstance(spec, TuningSpec):
        return platform.tuning.create(workspace, spec, proof)
    if isinstance(spec, QuantizeSpec):
        return platform.compression.create(workspace, spec, proof)
    return platform.models.revalidate(workspace, spec.model, spec.name or "", proof)


def check_places(
    spec: TuningSpec | CompressionWish, read: Mapping[str, Source | None], caller: ApiKey, platform: Platform
) -> None:
    """Raises Forbidden for a place that this key may not name; `read` are those that the job reads."""
    admin, settings = is_platform_admin(caller), platform.settings
    for field, source in read.items():
        if source is not None:
            check_source(source, admin=admin, settings=settings, field=field)
    for field, target in (("output", spec.output), ("keep_logs", spec.keep_logs)):
        if target is not None:
            check_target(target.uri, admin=admin, workspace=caller.workspace, settings=settings, field=field)


@router.post(":estimate")
def estimate(spec: Annotated[AnyEstimate, Body()], caller: Developer, platform: PlatformDep) -> dict[str, Any]:
    """How long a fine-tuning would run, or with `type: quantize` a compression, from and to, in hours.

    `documented` follows from the product's table, `measured` from what jobs of this kind have reached here; `hours` is
    the measured one where there is one. Null: nobody can tell.
    """
    if isinstance(spec, CompressionEstimateSpec):
        return {"object": "estimate", **platform.estimates.of_compression(caller.workspace, spec)}
    return {"object": "estimate", **platform.estimates.of(caller.workspace, spec)}


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


@router.get("/{job_id}/metrics")
def metrics(job_id: str, caller: Unlimited, platform: PlatformDep) -> dict[str, Any]:
    """What a training has gone through: at most 2,000 points, evenly thinned out, and the last figures.

    `sample` is what the new model says to the first question of the dataset.
    """
    job = platform.jobs.get(caller.workspace, job_id)
    curve, outcome = platform.jobs.curve(job), platform.jobs.outcome(job)
    told = {"last": job.metrics, "sample": outcome.sample if outcome else ""}
    return {"object": "job_metrics", "id": job.id, **told, **curve.model_dump(mode="json")}


@router.post("/{job_id}:stop", status_code=202)
def stop(job_id: str, caller: Unlimited, platform: PlatformDep) -> dict[str, Any]:
    """Stop a job; what it had published stays.

    One that trains stops at a checkpoint, one that compresses after a layer, and both can go on.
    """
    return show(platform.jobs.stop(caller.workspace, job_id))


@router.post("/{job_id}:resume", status_code=202)
def resume(job_id: str, caller: Unlimited, platform: PlatformDep) -> dict[str, Any]:
    """Go on with a training or compression that was stopped or failed, from the newest thing that it has kept."""
    job = platform.jobs.get(caller.workspace, job_id)
    maker = platform.compression if job.type == "quantize" else platform.tuning
    return show(maker.resume(caller.workspace, job_id))


@router.post("/{job_id}:export", status_code=202)
def export(job_id: str, caller: Unlimited, platform: PlatformDep) -> dict[str, Any]:
    """Bring a training's result into the model repository; of one that was stopped, its newest checkpoint."""
    return show(platform.tuning.export(caller.workspace, job_id))


@router.delete("/{job_id}", status_code=200)
def delete(job_id: str, caller: Unlimited, platform: PlatformDep, confirm: Confirm = "") -> dict[str, Any]:
    """Remove a finished job's record."""
    confirmed(confirm)
    platform.jobs.delete(caller.workspace, job_id)
    return {"object": "job", "id": job_id, "deleted": True}
