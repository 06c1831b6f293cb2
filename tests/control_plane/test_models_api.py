"""Models over the control API: uploaded step by step, found again, deleted; the jobs' processes are played."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.findings import finding
from app.core.job_specs import JobOutcome, JobProgress
from app.core.records import Job, Model
from app.settings import Settings
from app.store.layout import job_object, version_prefix
from app.store.object_store import ObjectStore
from app.store.objects import open_store
from tests.control_plane.platforms import FakeCluster, publish_model, spec, until

BODY = {"name": "mine", "base_model": "SmolLM2-135M-Instruct", "source": {"uri": "file:///models/mine"}}


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


async def created(admin: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await admin.post("/models", json={**BODY, **fields})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def ends(store: ObjectStore, job: Job, outcome: JobOutcome) -> None:
    store.write(job_object(job.id, "outcome.json"), outcome.model_dump_json().encode())


def submitted(platform: Platform, type: str, model_id: str) -> Job:
    def one() -> Job | None:
        jobs = [job for job in platform.jobs.of_model(model_id) if job.type == type and job.attempts]
        return jobs[-1] if jobs else None

    return until(one)


def settled(platform: Platform, model_id: str, state: str) -> Model:
    def one() -> Model | None:
        model = platform.registry.get(Model, model_id)
        return model if model and model.state == state else None

    return until(one)


async def test_a_model_is_validated_copied_and_healthy(
    admin: httpx.AsyncClient, platform: Platform, cluster: FakeCluster, store: ObjectStore
):
    model = await created(admin, description="说明")
    assert model["state"] == "preparing"
    validation = submitted(platform, "validate", model["id"])
    assert cluster.submitted[validation.id] == f"python -m jobs.validate --spec jobs/{validation.id}/spec.json"
    ends(store, validation, JobOutcome(ok=True, listing="abc"))

    upload = submitted(platform, "upload", model["id"])
    assert upload.spec["listing"] == "abc"
    told = JobProgress(phase="copying", done_bytes=5, total_bytes=10)
    store.write(job_object(upload.id, "progress.json"), told.model_dump_json().encode())
    until(lambda: platform.jobs.get("default", upload.id).progress == 0.5)
    ends(store, upload, JobOutcome(ok=True, prefix=version_prefix(model["id"], "BF16"), digest="d", size_bytes=10))

    settled(platform, model["id"], "healthy")
    shown = (await admin.get("/models/mine")).json()
    assert (shown["state"], shown["size_bytes"], shown["description"]) == ("healthy", 10, "说明")
    assert shown["source"] == {"uri": "file:///models/mine"}
    versions = (await admin.get("/models/mine/versions")).json()["data"]
    assert [(v["precision"], v["state"], v["digest"]) for v in versions] == [("BF16", "healthy", "d")]
    jobs = (await admin.get("/models/mine/jobs")).json()["data"]
    assert [(job["type"], job["state"], job["progress"]) for job in jobs] == [
        ("validate", "completed", 1.0), ("upload", "completed", 1.0),
    ]  # fmt: skip


async def test_findings_end_in_a_failed_model_that_names_them(
    admin: httpx.AsyncClient, platform: Platform, store: ObjectStore
):
    model = await created(admin)
    found = finding("config_unreadable", "Upload config.json.", file="config.json")
    job = submitted(platform, "validate", model["id"])
    ends(store, job, JobOutcome(ok=False, reason=found.message, findings=(found,)))
    settled(platform, model["id"], "failed")
    shown = (await admin.get(f"/models/{model['id']}")).json()
    assert shown["reason"] == "Failed to read user config.json."
    assert shown["findings"][0]["code"] == "config_unreadable"
    assert shown["findings"][0]["file"] == "config.json"
    refused = await admin.post("/endpoints", json={"name": "e", "model": "mine"})
    assert refused.status_code == 409
    assert "failed" in refused.json()["error"]["message"]


async def test_without_validation_copying_begins_at_once(admin: httpx.AsyncClient, platform: Platform):
    model = await created(admin, validate=False)
    submitted(platform, "upload", model["id"])
    assert [job.type for job in platform.jobs.of_model(model["id"])] == ["upload"]


async def test_a_process_that_is_lost_is_started_again_and_not_for_ever(
    admin: httpx.AsyncClient, platform: Platform, cluster: FakeCluster
):
    cluster.run_becomes = "failed"
    model = await created(admin)
    settled(platform, model["id"], "failed")
    assert platform.jobs.of_model(model["id"])[0].attempts == 3


async def test_an_upload_goes_on_after_a_restart(
    open_platform: Callable[..., Platform], settings: Settings, store: ObjectStore,
):  # fmt: skip
    first = open_platform()
    wish = first.models.create("default", _spec())
    job = submitted(first, "validate", wish.id)
    second = open_platform()
    ends(store, job, JobOutcome(ok=True))
    upload = submitted(second, "upload", wish.id)
    ends(store, upload, JobOutcome(ok=True, digest="d"))
    settled(second, wish.id, "healthy")


def _spec() -> Any:
    from app.core.model_specs import ModelSpec

    return ModelSpec.model_validate_json(httpx.Request("POST", "http://x", json=BODY).content)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"base_model": "Nobody-7B"}, "base_model"),
        ({"precision": "SmoothQuant-W8A8"}, "precision"),
        ({"precision": "FP4"}, "precision"),
        ({"source": None}, "source"),
        ({"source": {"uri": "models/mine"}}, "source.uri"),
        ({"source": {"uri": "file:///a/../b"}}, "source.uri"),
        ({"name": "1st"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"description": "x" * 101}, "description"),
        ({"validate": "yes"}, "validate"),
        ({"color": "red"}, "color"),
    ],
)
async def test_a_wrong_field_is_named(admin: httpx.AsyncClient, fields: dict[str, Any], param: str):
    answer = await admin.post("/models", json={**BODY, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_a_name_is_taken_once(admin: httpx.AsyncClient):
    await created(admin)
    assert (await admin.post("/models", json=BODY)).status_code == 409


async def test_a_developer_may_not_read_any_folder(client_for: Callable[..., httpx.AsyncClient], platform: Platform):
    key = platform.keys.issue("default", "developer", "")[1]
    answer = await client_for(key).post("/models", json=BODY)
    assert answer.status_code == 403
    assert "MODELUNIT_FILE_ROOTS" in answer.json()["error"]["message"]


async def test_deleting_frees_the_storage_and_then_the_record(
    admin: httpx.AsyncClient, platform: Platform, settings: Settings, store: ObjectStore
):
    publish_model(settings, "m-2", "Model-2")
    platform.models.adopt()
    assert list(store.list("models/m-2/"))
    assert (await admin.delete("/models/m-2")).status_code == 400
    assert (await admin.delete("/models/m-2?confirm=DELETE")).status_code == 202
    until(lambda: platform.registry.get(Model, "m-2") is None)
    assert not list(store.list("models/m-2/"))
    platform.models.adopt()
    assert platform.registry.get(Model, "m-2") is None


async def test_a_model_in_use_stays(admin: httpx.AsyncClient, platform: Platform):
    platform.endpoints.create("default", spec("user"))
    refused = await admin.delete("/models/m-1?confirm=DELETE")
    assert refused.status_code == 409
    assert "user" in refused.json()["error"]["message"]
    model = await created(admin)
    refused = await admin.delete(f"/models/{model['id']}?confirm=DELETE")
    assert refused.status_code == 409


async def test_a_stopped_upload_can_be_deleted(admin: httpx.AsyncClient, platform: Platform, cluster: FakeCluster):
    model = await created(admin)
    job = submitted(platform, "validate", model["id"])
    assert (await admin.post(f"/jobs/{job.id}:stop")).status_code == 202
    until(lambda: job.id in cluster.stopped)
    settled(platform, model["id"], "failed")
    assert (await admin.get(f"/jobs/{job.id}")).json()["state"] == "stopped"
    assert (await admin.delete(f"/models/{model['id']}?confirm=DELETE")).status_code == 202
    until(lambda: platform.registry.get(Model, model["id"]) is None)


async def test_a_healthy_model_is_validated_again(admin: httpx.AsyncClient, platform: Platform, store: ObjectStore):
    answer = await admin.post("/jobs", json={"type": "validate", "model": "Model-1"})
    assert answer.status_code == 202
    job = submitted(platform, "validate", "m-1")
    assert job.spec["prefix"] == version_prefix("m-1", "BF16")
    ends(store, job, JobOutcome(ok=False, reason="bad"))
    until(lambda: platform.jobs.get("default", job.id).state == "failed")
    assert platform.models.get("default", "m-1").state == "healthy"  # what serves is not taken away
    assert (await admin.delete(f"/jobs/{job.id}?confirm=DELETE")).status_code == 200
    assert (await admin.get(f"/jobs/{job.id}")).status_code == 404


async def test_jobs_are_filtered_and_belong_to_their_workspace(admin: httpx.AsyncClient, platform: Platform):
    model = await created(admin)
    submitted(platform, "validate", model["id"])
    assert len((await admin.get("/jobs?type=validate")).json()["data"]) == 1
    assert (await admin.get("/jobs?type=finetune")).json()["data"] == []
    assert (await admin.get("/jobs?state=nowhere")).status_code == 400
    assert (await admin.get("/jobs/job-of-nobody")).status_code == 404


async def test_the_catalogue_lists_base_models(admin: httpx.AsyncClient):
    page = (await admin.get("/catalog")).json()
    assert {"SmolLM2-135M-Instruct", "Qwen3-8B"} <= {entry["base_model"] for entry in page["data"]}
    one = (await admin.get("/catalog/Qwen3-8B")).json()
    assert "W8A8_FP8" in one["upload_precisions"]
    assert (await admin.get("/catalog/none")).status_code == 404
