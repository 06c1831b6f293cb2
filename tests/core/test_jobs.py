"""What becomes of jobs, and of models that are being prepared."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.job_specs import JobOutcome, JobProgress, job_of_model, output_model_id
from app.core.jobs import MAX_ATTEMPTS, anew, begun, has_process, judge, next_step, standing
from app.core.model_specs import ModelSpec
from app.core.records import Job, JobRun, Model

NOW = datetime(2026, 1, 31, tzinfo=UTC)
GOOD = JobOutcome(ok=True)
BAD = JobOutcome(ok=False, reason="Failed to read user config.json.")


def job(type: Any = "validate", state: Any = "creating", attempts: int = 0, reason: str = "") -> Job:
    return Job(
        id="job-1", created_at=NOW, workspace="default", type=type, name="j", state=state, attempts=attempts,
        reason=reason,
    )  # fmt: skip


def model(**spec: Any) -> Model:
    wish = ModelSpec.model_validate({"name": "m", "base_model": "b", **spec})
    return Model(
        id="m-1", created_at=NOW, workspace="default", name="m", base_model="b", spec=wish, state="preparing"
    )  # fmt: skip


def test_a_new_job_is_submitted():
    verdict = judge(job(), "missing", "", None)
    assert verdict.submit
    assert verdict.state == "queued"


@pytest.mark.parametrize("status", ["missing", "failed", "succeeded", "running"])
def test_an_outcome_counts_for_more_than_what_ray_says(status: Any):
    assert judge(job(state="running", attempts=1), status, "", GOOD).state == "completed"
    assert judge(job(state="running", attempts=1), status, "", BAD).state == "failed"
    assert judge(job(state="running", attempts=1), status, "", BAD).reason == BAD.reason


@pytest.mark.parametrize("status", ["missing", "failed", "succeeded"])
def test_a_process_that_ended_without_an_outcome_is_started_again(status: Any):
    verdict = judge(job(state="running", attempts=1), status, "killed", None)
    assert verdict.submit
    assert verdict.state == "queued"


def test_a_job_that_is_lost_again_and_again_fails_with_the_last_words():
    verdict = judge(job(state="running", attempts=MAX_ATTEMPTS), "failed", "out of memory", None)
    assert not verdict.submit
    assert verdict.state == "failed"
    assert "out of memory" in verdict.reason


def test_what_ray_stopped_is_not_started_again():
    assert judge(job(state="running", attempts=1), "stopped", "", None).state == "stopped"


def test_a_job_being_stopped_is_stopped_once_its_process_has_ended():
    assert judge(job(state="stopping", attempts=1), "running", "", None).state == "stopping"
    assert judge(job(state="stopping", attempts=1), "failed", "", None).state == "stopped"
    assert judge(job(state="stopping", attempts=0), "missing", "", None).state == "stopped"


def test_a_model_is_validated_then_uploaded_then_healthy():
    assert next_step(model(), [])[0] == "validate"
    assert next_step(model(), [job(state="running")])[0] == "wait"
    assert next_step(model(), [job(state="completed")])[0] == "upload"
    assert next_step(model(), [job(state="completed"), job("upload", "running")])[0] == "wait"
    assert next_step(model(), [job(state="completed"), job("upload", "completed")])[0] == "healthy"


def test_validation_can_be_left_out():
    assert next_step(model(validate=False), [])[0] == "upload"


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_model_fails_with_the_job_that_did_not_end_well(state: Any):
    step, decided_by = next_step(model(), [job(state=state, reason="why")])
    assert step == "failed"
    assert decided_by
    assert decided_by.reason == "why"
    assert next_step(model(), [job(state="completed"), job("upload", state)])[0] == "failed"


def test_progress_is_a_fraction_of_bytes():
    assert JobProgress().fraction == 0
    assert JobProgress(done_bytes=5, total_bytes=10).fraction == 0.5
    assert JobProgress(done_bytes=11, total_bytes=10).fraction == 1


def test_how_far_a_model_is_in_words():
    checked = job(state="completed")
    copying = job("upload", "running").model_copy(update={"progress": 0.407})
    assert standing([]) == "waiting for a job"
    assert standing([job(state="queued")]) == "waiting for a job"
    assert standing([job(state="running")]) == "checking its weights"
    assert standing([checked]) == "waiting for a job"
    assert standing([checked, copying]) == "copying 40 %"


def tuning(state: str = "running", attempts: int = 1, **run: Any) -> Job:
    return job("finetune", state, attempts).model_copy(update={"run": JobRun(**run), "reason": "why"})


STOPPED = JobOutcome(ok=False, stopped=True, reason="at a checkpoint")


def test_a_training_that_stopped_at_a_checkpoint_is_stopped_for_its_own_reason():
    assert judge(tuning(), "succeeded", "", STOPPED).state == "stopped"
    verdict = judge(tuning("stopping", stop_for="caller"), "succeeded", "", STOPPED)
    assert (verdict.state, verdict.reason, verdict.again) == ("stopped", "why", False)


def test_one_that_left_for_an_endpoint_is_queued_again_and_then_begins_anew():
    verdict = judge(tuning("stopping", stop_for="preemption"), "succeeded", "", STOPPED)
    assert (verdict.state, verdict.again) == ("queued", True)
    again = tuning("queued", 1).model_copy(update={"run": anew(tuning(attempts=1))})
    assert not has_process(again)
    assert judge(again, "missing", "", None).submit


def test_one_that_finishes_or_fails_while_it_is_to_stop_is_what_it_is():
    assert judge(tuning("stopping"), "succeeded", "", GOOD).state == "completed"
    assert judge(tuning("stopping"), "succeeded", "", BAD).state == "failed"


def test_attempts_that_get_further_do_not_count():
    worn = tuning(attempts=MAX_ATTEMPTS, checkpoint_before=10)
    assert judge(worn, "failed", "", None, checkpoint=10).state == "failed"
    assert judge(worn, "failed", "", None, checkpoint=20).submit
    run = begun(worn, checkpoint=20)
    assert (run.attempts_before, run.checkpoint_before) == (MAX_ATTEMPTS, 20)
    assert begun(worn, checkpoint=10) == worn.run


def test_what_a_job_makes_has_an_id_of_its_own():
    assert output_model_id("job-20260131093000-x1y2z") == "m-20260131093000-x1y2z"
    assert job_of_model("m-20260131093000-x1y2z") == "job-20260131093000-x1y2z"
