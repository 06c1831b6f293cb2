"""What a model's page shows, what its versions are for, and what is refused because of it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.errors import Conflict
from app.core.findings import Facts
from app.core.model_specs import ModelSpec, Source
from app.core.names import new_id
from app.core.records import Model, Version
from app.settings import Settings
from app.store.layout import version_prefix
from app.store.object_store import ObjectStore, StoreUnavailable
from app.store.objects import open_store
from tests.control_plane.platforms import admin_key, client_of, spec, until

BODY = {"name": "mine", "base_model": "llama2 7b", "source": {"uri": "s3://bucket/mine", "region": "cn-north-4"}}


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


def made(platform: Platform, name: str, precision: Any = "BF16", **fields: Any) -> Model:
    """A healthy model, as its upload leaves it."""
    now = datetime.now(UTC)
    wish = ModelSpec(name=name, base_model="Llama2-7B", precision=precision, source=Source(uri="s3://bucket/folder"))
    model = Model(
        id=new_id("m", now), created_at=now, workspace="default", name=name, base_model="Llama2-7B", spec=wish,
        state="healthy",
    ).model_copy(update=fields)  # fmt: skip
    prefix = version_prefix(model.id, precision)
    version = Version(
        id=f"{model.id}:{precision}", created_at=now, model_id=model.id, precision=precision, prefix=prefix,
        digest="d", state="healthy",
    )  # fmt: skip
    platform.registry.put(model, version)
    return model


async def test_the_page_of_a_model(admin: httpx.AsyncClient, platform: Platform):
    created = (await admin.post("/models", json={**BODY, "description": "我的"})).json()
    until(lambda: platform.jobs.of_model(created["id"]))
    page = (await admin.get("/models/mine")).json()
    basic = ("name", "id", "base_model", "description", "precision", "source", "mode", "state", "size_bytes")
    assert [page[field] for field in basic] == [
        "mine", created["id"], "Llama2-7B", "我的", "BF16", {"uri": "s3://bucket/mine", "region": "cn-north-4"}, "copy",
        "preparing", 0,
    ]  # fmt: skip
    assert page["parameters"] is None
    assert page["created_at"].endswith("Z")
    assert [(job["type"], job["name"]) for job in page["jobs"]] == [("validate", "validate-mine")]
    assert [(version["precision"], version["state"]) for version in page["versions"]] == [("BF16", "creating")]
    assert page["endpoints"] == []
    assert page["supports"]["why_not"] == dict.fromkeys(["tune", "compress", "deploy"], "it is preparing")


async def test_the_page_of_a_healthy_model(admin: httpx.AsyncClient, platform: Platform):
    made(platform, "healthy", facts=Facts(parameters=7, chat_template=True), size_bytes=14)
    endpoint = platform.endpoints.create("default", spec("user", model="healthy"))
    page = (await admin.get("/models/healthy")).json()
    assert (page["parameters"], page["size_bytes"]) == (7, 14)
    assert [user["id"] for user in page["endpoints"]] == [endpoint.id]
    assert page["supports"] == {
        "tune": ["full", "lora"], "compress": ["SmoothQuant-W8A8", "AWQ-W4A16"], "deploy": True, "why_not": {},
    }  # fmt: skip
    (version,) = (await admin.get("/models/healthy/versions")).json()["data"]
    assert version["supports"] == page["supports"]


async def test_a_key_for_some_endpoints_sees_only_those(platform: Platform, client_for: Any):
    made(platform, "healthy")
    one = platform.endpoints.create("default", spec("one", model="healthy"))
    platform.endpoints.create("default", spec("two", model="healthy"))
    key = platform.keys.issue("default", "developer", "", endpoints=[one.id])[1]
    page = (await client_for(key).get("/models/healthy")).json()
    assert [user["name"] for user in page["endpoints"]] == ["one"]


async def test_a_key_for_some_endpoints_changes_no_models_and_jobs(
    admin: httpx.AsyncClient, platform: Platform, client_for: Any
):
    made(platform, "healthy")
    one = platform.endpoints.create("default", spec("one", model="healthy"))
    job = (await admin.post("/jobs", json={"type": "validate", "model": "healthy"})).json()["id"]
    for role in ("developer", "admin"):
        holder = client_for(platform.keys.issue("default", role, "", endpoints=[one.id])[1])
        for method, path, body in (
            ("POST", "/models", BODY),
            ("POST", "/models/healthy:retry", None),
            ("DELETE", "/models/healthy?confirm=DELETE", None),
            ("POST", "/jobs", {"type": "validate", "model": "healthy"}),
            ("POST", f"/jobs/{job}:stop", None),
            ("DELETE", f"/jobs/{job}?confirm=DELETE", None),
            ("GET", f"/jobs/{job}/logs", None),
            ("GET", f"/jobs/{job}/logs?follow=true", None),
        ):
            answer = await holder.request(method, path, json=body)
            assert answer.status_code == 403, (role, method, path)
            assert "for some endpoints only" in answer.json()["error"]["message"]
        for path in ("/models", "/models/healthy", "/models/healthy/versions", "/jobs", f"/jobs/{job}"):
            assert (await holder.get(path)).status_code == 200
    assert platform.models.get("default", "healthy").state == "healthy"


async def test_what_keeps_a_model_is_named_and_the_rest_counted(admin: httpx.AsyncClient, platform: Platform):
    made(platform, "healthy")
    for number in range(7):
        platform.endpoints.create("default", spec(f"e{number}", model="healthy"))
    refused = await admin.delete("/models/healthy?confirm=DELETE")
    assert refused.status_code == 409
    assert refused.json()["error"]["message"].endswith("; and 2 more.")


async def test_a_model_that_was_found_in_the_store(admin: httpx.AsyncClient):
    page = (await admin.get("/models/m-1")).json()
    assert (page["precision"], page["source"], page["parameters"]) == ("BF16", None, None)
    assert (page["supports"]["tune"], page["supports"]["deploy"]) == ([], True)
    assert page["supports"]["why_not"]["tune"] == "its base model is not in the catalogue"


async def test_quantized_weights_are_for_deploying_only(admin: httpx.AsyncClient, platform: Platform):
    made(platform, "small", "AWQ-W4A16")
    page = (await admin.get("/models/small")).json()
    assert (page["supports"]["tune"], page["supports"]["compress"], page["supports"]["deploy"]) == ([], [], True)
    assert "AWQ-W4A16" in page["supports"]["why_not"]["tune"]
    assert (await admin.post("/endpoints", json={"name": "e", "model": "small", "precision": "AWQ-W4A16"})).is_success


async def test_without_a_chat_template_there_is_no_endpoint_and_the_reason_is_said(
    admin: httpx.AsyncClient, platform: Platform
):
    made(platform, "base", facts=Facts(chat_template=False))
    refused = await admin.post("/endpoints", json={"name": "e", "model": "base"})
    assert refused.status_code == 409
    assert "its tokenizer has no chat template" in refused.json()["error"]["message"]
    page = (await admin.get("/models/base")).json()
    assert (page["supports"]["tune"], page["supports"]["deploy"]) == (["full", "lora"], False)


# ---- mode reference


async def test_a_reference_must_lie_in_the_platform_s_own_store(admin: httpx.AsyncClient, settings: Settings):
    for uri in ("s3://bucket/mine", f"file://{settings.home}/elsewhere", f"file://{settings.home}/objects"):
        answer = await admin.post("/models", json={**BODY, "source": {"uri": uri}, "mode": "reference"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "mode"), uri
    assert (await admin.get("/models/mine")).status_code == 404


async def test_a_reference_is_told_to_the_job(
    admin: httpx.AsyncClient, platform: Platform, settings: Settings, store: ObjectStore
):
    uri = f"file://{settings.home}/objects/mine"
    body = {**BODY, "source": {"uri": uri}, "mode": "reference", "validate": False}
    model = (await admin.post("/models", json=body)).json()
    assert (model["mode"], model["source"]) == ("reference", {"uri": uri})
    (job,) = until(lambda: platform.jobs.of_model(model["id"]))
    assert (job.type, job.spec["mode"], job.spec["source"]) == ("upload", "reference", {"uri": uri})


async def test_recommended_weights_may_be_referred_to_where_they_lie(
    settings: Settings, open_platform: Any, client_for: Any
):
    (settings.home / "catalog.yaml").write_text(
        "- models:\n"
        f"    - {{base_model: Llama2-7B, recommended_source: 'file://{settings.home}/objects/llama'}}\n"
        "    - {base_model: Llama2-13B, recommended_source: 's3://bucket/llama'}\n"
    )
    platform = open_platform()
    client = client_of(platform, admin_key(settings))
    body = {"name": "mine", "mode": "reference"}
    assert (await client.post("/models", json={**body, "base_model": "Llama2-7B"})).status_code == 202
    refused = await client.post("/models", json={**body, "name": "other", "base_model": "Llama2-13B"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mode")


# ---- names and races


async def test_a_name_is_free_while_its_last_bearer_is_removed_and_means_the_new_one(
    admin: httpx.AsyncClient, platform: Platform
):
    platform.job_loop.stop()
    old = made(platform, "mine", state="deleting")
    new = made(platform, "mine")
    assert platform.models.get("default", "mine").id == new.id
    assert platform.models.get("default", old.id).state == "deleting"


async def test_a_model_may_be_named_like_another_workspace_s_id(platform: Platform):
    platform.workspaces.create("theirs")
    theirs = made(platform, "mine", workspace=platform.workspaces.find()[-1].id)
    ours = made(platform, theirs.id)
    assert platform.models.get("default", theirs.id).id == ours.id


def test_what_was_removed_while_it_was_being_adopted_stays_removed(
    platform: Platform, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    from app.control_plane.services import models

    (stale,) = models.find_manifests(store)
    platform.models.delete("default", "m-1")
    until(lambda: platform.registry.get(Model, "m-1") is None)
    monkeypatch.setattr(models, "find_manifests", lambda _: [stale])
    platform.models.adopt()
    assert platform.registry.get(Model, "m-1") is None


async def test_a_store_that_is_away_keeps_nobody_from_wishing(
    admin: httpx.AsyncClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
):
    from app.control_plane.services import models

    def fail(_: ObjectStore) -> None:
        raise StoreUnavailable("object store: EndpointConnectionError, at 'models/'")

    monkeypatch.setattr(models, "find_manifests", fail)
    assert (await admin.post("/models", json=BODY)).status_code == 202
    assert (await admin.post("/endpoints", json={"name": "e", "model": "m-1"})).status_code == 202


class Meanwhile:
    """A lock before which somebody else comes in, once."""

    def __init__(self, lock: Any, act: Callable[[], object]):
        self._lock = lock
        self._acts = [act]

    def __enter__(self) -> None:
        if self._acts:
            self._acts.pop()()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_model_that_is_removed_meanwhile_is_neither_deployed_nor_validated(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
):
    def remove(name: str) -> Callable[[], object]:
        return lambda: platform.models.delete("default", name)

    platform.job_loop.stop()
    for name in ("one", "two"):
        made(platform, name)
    monkeypatch.setattr(platform.endpoints, "_lock", Meanwhile(platform.endpoints._lock, remove("one")))
    with pytest.raises(Conflict, match="deleting"):
        platform.endpoints.create("default", spec("e", model="one"))
    monkeypatch.setattr(platform.models, "_lock", Meanwhile(platform.models._lock, remove("two")))
    with pytest.raises(Conflict, match="deleting"):
        platform.models.revalidate("default", "two", "")


# ---- removing


def test_a_deletion_that_was_cut_short_is_finished_after_a_restart(open_platform: Any, store: ObjectStore):
    first = open_platform()
    first.job_loop.stop()
    first.models.delete("default", "m-1")
    assert list(store.list("models/m-1/"))
    second = open_platform()
    until(lambda: second.registry.get(Model, "m-1") is None)
    assert not list(store.list("models/m-1/"))


def test_a_store_that_fails_halfway_leaves_the_record_until_everything_is_gone(
    open_platform: Any, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    platform = open_platform(clock=lambda: now)
    platform.job_loop.stop()
    platform.models.delete("default", "m-1")
    delete = platform.models._store.delete

    def fail(name: str) -> None:
        if name.endswith("config.json"):
            raise StoreUnavailable("object store: SlowDown")
        delete(name)

    monkeypatch.setattr(platform.models._store, "delete", fail)
    platform.job_runner.step()
    assert platform.models.get("default", "m-1").state == "deleting"
    platform.models.adopt()
    assert platform.models.get("default", "m-1").state == "deleting"
    monkeypatch.setattr(platform.models._store, "delete", delete)
    now = 10.0
    platform.job_runner.step()
    assert platform.registry.get(Model, "m-1") is None
    assert not list(store.list("models/m-1/"))


# ---- sweeping


def test_what_an_interrupted_upload_left_is_swept_every_hour(
    open_platform: Any, settings: Settings, store: ObjectStore
):
    import os

    now = 0.0
    platform = open_platform(clock=lambda: now)
    platform.job_loop.stop()

    def leave(model_id: str) -> str:
        name = f"{version_prefix(model_id, 'BF16')}model.safetensors"
        store.write(name, b"half")
        path = store.local_path(name)
        assert path
        os.utime(path, (0, 0))  # long ago
        return name

    def there(name: str) -> bool:
        return store.local_path(name) is not None

    platform.job_runner.step()
    name = leave("m-gone")
    now = 3599.0
    platform.job_runner.step()
    assert there(name)
    now = 3601.0
    platform.job_runner.step()
    assert not there(name)
    assert there(f"{version_prefix('m-1', 'BF16')}config.json")
    again = leave("m-gone-too")
    now = 3601.0 + 3599
    platform.job_runner.step()
    assert there(again)


def test_a_sweep_that_fails_holds_up_nothing(open_platform: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    platform = open_platform()
    platform.job_loop.stop()
    calls = []

    def fail() -> None:
        calls.append(1)
        raise OSError("the store is away")

    monkeypatch.setattr(platform.preparation, "sweep", fail)
    monkeypatch.setattr(platform.job_runner, "_sweep_at", 0.0)
    assert platform.job_runner.step()
    assert platform.job_runner.step()
    assert calls == [1]
