"""Logs of jobs over the control API: while they run, when they have ended, and when Ray has forgotten them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import httpx
import pytest

from app.control_plane.platform import Platform
from app.control_plane.services.following import FOLLOWED_FOR, Sleep
from app.core.job_specs import JobOutcome
from app.core.records import ApiKey, Job
from app.settings import Settings
from app.store.layout import job_object
from app.store.object_store import ObjectStore, StoreError
from app.store.objects import open_store
from tests.control_plane.clocks import WallClock
from tests.control_plane.conftest import ClientFor
from tests.control_plane.platforms import ONE_DATABASE, WAIT_S, FakeCluster, until


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture
async def job(admin: httpx.AsyncClient, platform: Platform) -> Job:
    """A job that runs."""
    made = (await admin.post("/jobs", json={"type": "validate", "model": "Model-1"})).json()
    return running(platform, made["id"])


def running(platform: Platform, job_id: str, attempts: int = 1) -> Job:
    def one() -> Job | None:
        job = platform.jobs.get("default", job_id)
        return job if job.attempts == attempts and job.state == "running" else None

    return until(one)


def end(platform: Platform, store: ObjectStore, job: Job) -> None:
    store.write(job_object(job.id, "outcome.json"), JobOutcome(ok=True).model_dump_json().encode())
    until(lambda: platform.jobs.get("default", job.id).state == "completed")


async def messages(admin: httpx.AsyncClient, job: Job, **query: str) -> list[str]:
    answer = await admin.get(f"/jobs/{job.id}/logs", params=query)
    assert answer.status_code == 200, answer.text
    return [line["message"] for line in answer.json()["data"]]


async def note(admin: httpx.AsyncClient, job: Job) -> str:
    answer = (await admin.get(f"/jobs/{job.id}/logs")).json()
    assert answer["data"] == []
    return str(answer["note"])


async def test_what_a_running_job_writes(admin: httpx.AsyncClient, job: Job, cluster: FakeCluster):
    cluster.written[job.id] = "Validating\ncannot read /data/x: password=hunter22\n"
    assert await messages(admin, job) == ["Validating", "cannot read x: password=***"]
    assert await messages(admin, job, search="VALID") == ["Validating"]
    page = (await admin.get(f"/jobs/{job.id}/logs?page_size=1")).json()
    assert (page["data"][0]["id"], page["next_page_token"]) == ("1", "1")
    rest = await admin.get(f"/jobs/{job.id}/logs?page_token=1")
    assert [line["id"] for line in rest.json()["data"]] == ["2"]


async def test_a_log_is_one_text_to_download(admin: httpx.AsyncClient, job: Job, cluster: FakeCluster):
    cluster.written[job.id] = "one\ntwo\n"
    answer = await admin.get(f"/jobs/{job.id}/logs?download=true&search=o")
    assert answer.text == "one\ntwo\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job.id}.log"'


async def test_a_log_outlives_ray(
    admin: httpx.AsyncClient, job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore
):
    cluster.written[job.id] = "one\ntoken=abcdefgh\n"
    end(platform, store, job)
    cluster.written.clear()
    assert await messages(admin, job) == ["one", "token=***"]
    assert b"abcdefgh" not in store.read(job_object(job.id, "log.txt"))
    assert (await admin.delete(f"/jobs/{job.id}?confirm=DELETE")).status_code == 200
    assert not list(store.list(job_object(job.id, "")))


async def test_why_there_is_nothing_is_said(
    admin: httpx.AsyncClient, job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore
):
    assert await note(admin, job) == "Ray no longer has this job's log, and none was kept."
    cluster.written[job.id] = ""
    assert await note(admin, job) == "It has not written anything."
    end(platform, store, job)
    cluster.written.clear()
    assert "none was kept" in await note(admin, job)
    waiting = job.model_copy(update={"id": "job-2", "state": "creating", "attempts": 0})
    assert platform.job_logs.read(waiting).note == "It waits for its turn."


async def test_all_attempts_are_shown(
    admin: httpx.AsyncClient, job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore
):
    cluster.written |= {job.id: "first", f"{job.id}-2": "second\n"}
    cluster.run_becomes = "failed"
    until(lambda: f"{job.id}-2" in cluster.submitted)
    cluster.run_becomes = "running"
    running(platform, job.id, attempts=2)
    assert await messages(admin, job) == ["--- attempt 1", "first", "--- attempt 2", "second"]
    del cluster.written[job.id]
    assert (await messages(admin, job))[0] == "--- attempt 1: Ray no longer has what it wrote"


def followed(
    platform: Platform, job: Job, sleep: Sleep, allowed: Callable[[], bool] = lambda: True
) -> AsyncIterator[str]:
    return platform.following.text(platform.job_logs.follower(job), allowed, sleep)


async def test_a_log_is_followed_to_its_end(job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore):
    cluster.written[job.id] = "one\ntw"
    steps: list[Callable[[], None]] = [
        lambda: cluster.written.update({job.id: "one\ntwo\nthree"}),
        lambda: None,
        lambda: end(platform, store, job),
    ]

    async def next_step(_: float) -> None:
        await asyncio.to_thread(steps.pop(0))

    chunks = [chunk async for chunk in followed(platform, job, next_step)]
    assert chunks == ["one\n", "two\n", "three\n"]


async def test_a_follower_hears_that_the_connection_lives(job: Job, platform: Platform, store: ObjectStore):
    slept = 0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += 1
        if slept == 35:
            await asyncio.to_thread(end, platform, store, job)

    assert [chunk async for chunk in followed(platform, job, sleep)] == ["\n"]


@ONE_DATABASE
async def test_a_job_without_an_end_is_followed_for_an_hour(job: Job, platform: Platform, wall: WallClock):
    begun = wall()

    async def sleep(seconds: float) -> None:
        wall.jump(seconds=seconds)

    assert len([chunk async for chunk in followed(platform, job, sleep)]) > 100
    assert timedelta(0) <= wall() - begun - FOLLOWED_FOR < timedelta(minutes=1)


async def test_who_may_not_read_any_more_reads_no_more(
    admin: httpx.AsyncClient, job: Job, cluster: FakeCluster, platform: Platform, wall: WallClock
):
    """Revoked, ended, no longer a developer: with the next look it is over."""
    ann = (await admin.post("/members", json={"name": "ann", "role": "admin"})).json()["id"]
    issue = platform.keys.issue
    revoked, ending, theirs = (
        issue("default", "developer", "")[0],
        issue("default", "developer", "", expires_at=wall() + timedelta(minutes=1))[0],
        issue("default", "developer", "", member=ann)[0],
    )
    endings: list[tuple[ApiKey, Callable[[], object]]] = [
        (revoked, lambda: platform.keys.revoke("default", revoked.id)),
        (ending, lambda: wall.jump(minutes=1)),
        (theirs, lambda: platform.members.change("default", ann, {"role": "inference"})),
    ]
    for key, end_it in endings:
        cluster.written[job.id] = "one\n"
        slept = 0

        async def sleep(_: float, end_it: Callable[[], object] = end_it) -> None:
            nonlocal slept
            slept += 1
            if slept == 2:
                await asyncio.to_thread(end_it)
            cluster.written[job.id] += f"line {slept}\n"

        async with asyncio.timeout(WAIT_S):
            chunks = followed(platform, job, sleep, lambda key=key: platform.keys.holds(key))  # type: ignore[misc]
            assert [chunk async for chunk in chunks] == ["one\n", "line 1\n"]


@ONE_DATABASE
async def test_a_revoked_key_follows_no_longer_over_http(
    client_for: ClientFor, job: Job, cluster: FakeCluster, platform: Platform
):
    cluster.written[job.id] = "one\n"
    issued, key = platform.keys.issue("default", "developer", "")
    asyncio.get_running_loop().call_later(0.3, platform.keys.revoke, "default", issued.id)
    async with asyncio.timeout(WAIT_S):
        answer = await client_for(key).get(f"/jobs/{job.id}/logs?follow=true")
    assert answer.text == "one\n"


async def test_a_follower_is_served_over_http(
    admin: httpx.AsyncClient, job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore
):
    cluster.written[job.id] = "Loss 1\nother\n"
    end(platform, store, job)
    answer = await admin.get(f"/jobs/{job.id}/logs?follow=true&search=loss")
    assert (answer.text, answer.headers["content-type"]) == ("Loss 1\n", "text/plain; charset=utf-8")


async def test_ray_that_does_not_answer_is_said_and_costs_the_job_nothing(
    admin: httpx.AsyncClient, job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    def refuse(submission_id: str) -> str:
        raise RuntimeError("Request failed with status code 500: /secret/place")

    monkeypatch.setattr(cluster, "logs", refuse)
    answer = await admin.get(f"/jobs/{job.id}/logs")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "The log cannot be read now; try again."
    end(platform, store, job)


async def test_a_store_that_fails_costs_the_log_only(
    job: Job, cluster: FakeCluster, platform: Platform, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    def refuse(name: str, data: bytes) -> None:
        raise StoreError("object store: SlowDown")

    cluster.written[job.id] = "one\n"
    monkeypatch.setattr(platform.job_logs._store, "write", refuse)
    platform.job_logs.keep(job)


async def test_logs_belong_to_their_workspace(admin: httpx.AsyncClient):
    assert (await admin.get("/jobs/job-of-nobody/logs")).status_code == 404


async def test_a_log_is_followed_or_downloaded(admin: httpx.AsyncClient, job: Job):
    answer = await admin.get(f"/jobs/{job.id}/logs?follow=true&download=true")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "download")
