"""What becomes of a job when others change it while a step works on it."""

import pytest

from app.control_plane.platform import Platform
from app.core.records import DEFAULT_WORKSPACE, Event, Job
from tests.control_plane.platforms import FakeCluster, change, until


def state(platform: Platform, job_id: str) -> str:
    return platform.jobs.get(DEFAULT_WORKSPACE, job_id).state


def test_a_job_that_is_stopped_while_it_begins_leaves_no_process(
    platform: Platform, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = cluster.submit

    def submit_and_stop(submission_id: str, entrypoint: str) -> None:
        submit(submission_id, entrypoint)
        platform.jobs.stop(DEFAULT_WORKSPACE, submission_id)

    monkeypatch.setattr(cluster, "submit", submit_and_stop)
    job = platform.models.revalidate(DEFAULT_WORKSPACE, "m-1", "")
    until(lambda: state(platform, job.id) == "stopped")
    assert cluster.stopped == {job.id}
    kinds = [event.kind for event in platform.registry.find(Event, subject=job.id)]
    assert kinds == ["created", "stopping", "stopped"]


def test_a_job_that_has_ended_does_not_begin_again(
    platform: Platform, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = cluster.submit

    def submit_and_end(submission_id: str, entrypoint: str) -> None:
        submit(submission_id, entrypoint)
        job = platform.registry.get(Job, submission_id)
        assert job is not None
        change(platform, job, state="failed")

    monkeypatch.setattr(cluster, "submit", submit_and_end)
    job = platform.models.revalidate(DEFAULT_WORKSPACE, "m-1", "")
    until(lambda: state(platform, job.id) == "failed")
    platform.job_loop.stop()  # after the step that is on its way
    assert state(platform, job.id) == "failed"
