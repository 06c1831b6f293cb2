"""How much a workspace may have."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.records import DEFAULT_WORKSPACE
from app.settings import Settings
from tests.control_plane.platforms import ONE_DATABASE, admin_key, change, client_of, spec
from tests.control_plane.trainings import add_base, tune

pytestmark = ONE_DATABASE


@pytest.fixture
def platform(open_platform: Callable[..., Platform]) -> Platform:
    """Where nothing goes by itself, and of everything there may be two."""
    platform = open_platform(endpoints_per_workspace=2, models_per_workspace=2, unfinished_jobs_per_workspace=2)
    for loop in platform.loops:
        loop.stop()
    return platform


@pytest.fixture
def admin(platform: Platform, settings: Settings) -> httpx.AsyncClient:
    return client_of(platform, admin_key(settings))


async def create(admin: httpx.AsyncClient, name: str) -> str:
    answer = await admin.post("/endpoints", json={"name": name, "model": "m-1"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def refused(answer: httpx.Response) -> Any:
    assert answer.status_code == 409
    return answer.json()["error"]["message"]


def settle(platform: Platform) -> None:
    for _ in range(3):
        platform.reconciler.step()


async def test_endpoints(admin: httpx.AsyncClient, platform: Platform) -> None:
    one = await create(admin, "one")
    await create(admin, "two")
    await admin.post(f"/endpoints/{one}:stop")
    settle(platform)
    told = refused(await admin.post("/endpoints", json={"name": "three", "model": "m-1"}))
    assert "has 2 endpoints already, and may have 2" in told
    assert "endpoints_per_workspace" in told
    other, _, _ = platform.workspaces.create("other")
    change(platform, platform.models.get("default", "m-1"), workspace=other.id)
    platform.endpoints.create(other.id, spec("three"))  # which has room of its own


async def test_deleted_endpoints(admin: httpx.AsyncClient, platform: Platform) -> None:
    gone = []
    for name in ("one", "two"):
        gone.append(await create(admin, name))
        await admin.delete(f"/endpoints/{gone[-1]}?confirm=DELETE")
        settle(platform)
    told = refused(await admin.post("/endpoints", json={"name": "three", "model": "m-1"}))
    assert "has 2 deleted endpoints that can be restored, and may have 2: purge some first" in told
    assert (await admin.delete(f"/endpoints/{gone[0]}?confirm=DELETE&purge=true")).status_code == 202
    for name in ("three", "four"):
        await create(admin, name)
    assert "has 2 endpoints already" in refused(await admin.post(f"/endpoints/{gone[1]}:restore"))


async def test_models(admin: httpx.AsyncClient) -> None:
    wish = {"base_model": "Llama2-7B", "source": {"uri": "s3://bucket/mine"}}
    assert (await admin.post("/models", json={"name": "one", **wish})).status_code == 202
    told = refused(await admin.post("/models", json={"name": "two", **wish}))  # m-1 is there already
    assert "has 2 models already, and may have 2" in told


async def test_models_that_jobs_have_made_and_kept_back(admin: httpx.AsyncClient, platform: Platform) -> None:
    first = platform.models.get(DEFAULT_WORKSPACE, "m-1")
    add_base(platform)
    other, _, _ = platform.workspaces.create("other")
    platform.registry.put(first.model_copy(update={"workspace": other.id}))
    job = tune(platform)
    platform.registry.put(job.model_copy(update={"state": "completed"}), first)  # more has come meanwhile
    assert "has 2 models already" in refused(await admin.post(f"/jobs/{job.id}:export"))


async def test_jobs(admin: httpx.AsyncClient, platform: Platform) -> None:
    wish = {"type": "validate", "model": "m-1"}
    jobs = [(await admin.post("/jobs", json=wish)).json()["id"] for _ in range(2)]
    for path, body in (
        ("/jobs", wish),
        ("/models", {"name": "one", "base_model": "Llama2-7B", "source": {"uri": "s3://bucket/mine"}}),
    ):
        assert "has 2 jobs that have not ended already, and may have 2" in refused(await admin.post(path, json=body))
    await admin.post(f"/jobs/{jobs[0]}:stop")
    for _ in range(3):
        platform.job_runner.step()
    assert (await admin.post("/jobs", json=wish)).status_code == 202
