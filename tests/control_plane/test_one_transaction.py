"""What is deleted and the event that tells of it go together, whatever happens in between."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.control_plane.platform import Platform
from app.core.errors import PlatformError, Unavailable
from app.core.records import ApiKey, Endpoint, Event, Job, Member, Model, Record, Workspace
from app.store.layout import job_object
from app.store.object_store import StoreUnavailable
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import ONE_DATABASE, change, spec

pytestmark = ONE_DATABASE


@pytest.fixture
def platform(open_platform: OpenPlatform) -> Platform:
    """Nothing goes by itself, so nothing else writes."""
    platform = open_platform()
    for loop in platform.loops:
        loop.stop()
    return platform


def ended_job(platform: Platform, workspace: str) -> Job:
    model = platform.models.get("default", "m-1").model_copy(update={"workspace": workspace})
    job = platform.jobs.new("validate", model, {}).model_copy(update={"state": "completed"})
    platform.registry.put(job)
    platform.job_runner._store.write(job_object(job.id, "spec.json"), b"{}")
    return job


def key(platform: Platform) -> tuple[Record, Callable[[], Any]]:
    record, _ = platform.keys.issue("default", "inference", "")
    return record, lambda: platform.keys.revoke("default", record.id)


def member(platform: Platform) -> tuple[Record, Callable[[], Any]]:
    record = platform.members.add("default", "ann", "developer", None)
    platform.keys.issue("default", "inference", "", member="ann")
    return record, lambda: platform.members.remove("default", "ann")


def workspace(platform: Platform) -> tuple[Record, Callable[[], Any]]:
    record, _, _ = platform.workspaces.create("theirs")
    ended_job(platform, record.id)
    return record, lambda: platform.workspaces.delete(record.id)


def job(platform: Platform) -> tuple[Record, Callable[[], Any]]:
    record = ended_job(platform, "default")
    return record, lambda: platform.jobs.delete("default", record.id)


def model(platform: Platform) -> tuple[Record, Callable[[], Any]]:
    record = platform.models.delete("default", "m-1")
    return record, lambda: platform.preparation.erase(record)


def tombstone(platform: Platform) -> tuple[Record, Callable[[], Any]]:
    record = platform.endpoints.create("default", spec("gone"))
    record = change(platform, record, state="deleting", deleted_at=record.created_at)
    return record, lambda: platform.tombstones.purge("default", record.id)


KINDS: tuple[type[Record], ...] = (Workspace, Member, ApiKey, Job, Model, Endpoint)


def everything(platform: Platform) -> set[str]:
    return {record.id for kind in KINDS for record in platform.registry.find(kind)}


@pytest.mark.parametrize("make", [key, member, workspace, job, model, tombstone])
def test_all_of_it_or_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, make: Callable[[Platform], tuple[Record, Callable[[], Any]]]
) -> None:
    record, remove = make(platform)
    before, told_before = everything(platform), platform.registry.find(Event, subject=record.id)
    write, transactions = platform.registry._write, [0]

    @contextmanager
    def once() -> Iterator[Any]:
        transactions[0] += 1
        if transactions[0] > 1:
            raise Unavailable("The registry cannot be used at the moment.")
        with write() as connection:
            yield connection

    with monkeypatch.context() as patched:
        patched.setattr(platform.registry, "_write", once)
        try:
            remove()
        except PlatformError:
            assert everything(platform) == before
            assert platform.registry.find(Event, subject=record.id) == told_before
            return
    assert record.id not in everything(platform)
    assert len(platform.registry.find(Event, subject=record.id)) > len(told_before) or isinstance(record, Workspace)
    assert platform.registry.find(Event, subject=record.id)[-1].kind in ("revoked", "removed", "deleted", "purged")


def test_a_workspace_leaves_no_files_of_its_jobs(platform: Platform) -> None:
    theirs, _, _ = platform.workspaces.create("theirs")
    job = ended_job(platform, theirs.id)
    platform.workspaces.delete(theirs.id)
    assert list(platform.job_runner._store.list(job_object(job.id, ""))) == []


def test_a_workspace_goes_though_the_object_store_is_away(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("no answer")

    theirs, _, _ = platform.workspaces.create("theirs")
    job = ended_job(platform, theirs.id)
    monkeypatch.setattr(platform.job_runner._store, "delete", away)
    platform.workspaces.delete(theirs.id)
    assert theirs.id not in everything(platform)
    assert job.id in caplog.text
