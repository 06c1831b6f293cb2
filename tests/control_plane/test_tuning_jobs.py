"""Fine-tuning jobs from the wish to the model that they make; their processes are played."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.errors import Conflict
from app.core.job_specs import WAITING_FOR_MACHINES, JobProgress, output_model_id
from app.core.records import DEFAULT_WORKSPACE, Event, Job, Model, Record, Version
from app.core.specs import EndpointSpec
from app.store.layout import JOB_PROGRESS, job_object
from tests.control_plane.clocks import WallClock
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, until
from tests.control_plane.trainings import BASE, BASE_MODEL, BODY, Training, add_base, rooms, tune

pytestmark = ONE_DATABASE


@pytest.fixture
def platform(open_platform: Callable[..., Platform]) -> Platform:
    platform = open_platform()
    add_base(platform)
    return platform


@pytest.fixture
def begin(platform: Platform, cluster: FakeCluster) -> Callable[..., Training]:
    """A job that trains, as the API makes it."""

    def one(**fields: Any) -> Training:
        training = Training(platform, cluster, tune(platform, **fields))
        training.becomes("running")
        return training

    return one


def kinds(platform: Platform, subject: str) -> list[str]:
    return [event.kind for event in platform.registry.find(Event, subject=subject)]


async def test_a_training_makes_a_model_with_its_lineage(
    admin: httpx.AsyncClient, platform: Platform, cluster: FakeCluster
) -> None:
    answer = await admin.post("/jobs", json=BODY, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202, answer.text
    again = await admin.post("/jobs", json=BODY, headers={"Idempotency-Key": "one"})
    training = Training(platform, cluster, platform.jobs.get(DEFAULT_WORKSPACE, answer.json()["id"]))
    assert again.json()["id"] == training.id
    training.becomes("running")
    assert cluster.submitted == {training.id: f"python -m jobs.finetune --spec jobs/{training.id}/spec.json"}
    training.tells(40, loss=1.25)
    until(lambda: training.job.progress == 0.4)
    shown = (await admin.get(f"/jobs/{training.id}")).json()
    assert (shown["eta_s"], shown["metrics"]["loss"], shown["output_model"]) == (120.0, 1.25, None)
    assert shown["spec"]["output_model_name"] == "taught"
    curve = (await admin.get(f"/jobs/{training.id}/metrics")).json()
    assert [point["iteration"] for point in curve["points"]] == [40]

    manifest = training.completes()
    made = training.becomes("completed").output_model
    assert made == output_model_id(training.id)
    page = (await admin.get(f"/models/{made}")).json()
    assert (page["name"], page["base_model"], page["origin"]) == ("taught", BASE_MODEL, "lora")
    assert (page["parent_model_id"], page["job_id"]) == (BASE, training.id)
    [version] = page["versions"]
    assert (version["digest"], version["calls"]["ways"]) == (manifest.digest, ["unit"])
    assert "quantized before" in version["calls"]["why_not"]["batch"]
    assert (await admin.get(f"/jobs/{training.id}/metrics")).json()["sample"] == "Belmarisk."
    assert kinds(platform, training.id) == ["created", "queued", "running", "completed"]


def test_a_result_is_registered_once_also_by_a_control_plane_that_comes_later(
    open_platform: Callable[..., Platform], platform: Platform, begin: Callable[..., Training], cluster: FakeCluster
) -> None:
    training = begin()
    platform.job_loop.stop()  # killed before it hears of the end
    training.completes()
    later = open_platform()  # which looks what lies in the store before it looks at jobs
    training = Training(later, cluster, training.job)
    training.becomes("completed")
    again = open_platform()
    [model] = [model for model in again.registry.find(Model) if model.name == "taught"]
    assert (model.job_id, model.workspace) == (training.id, DEFAULT_WORKSPACE)
    assert len(again.registry.find(Version, model_id=model.id)) == 1


def test_what_a_stopped_job_has_published_is_nobody_s_until_it_goes_with_the_job(
    platform: Platform, begin: Callable[..., Training]
) -> None:
    training = begin()
    training.publishes()
    training.fails("killed in between")
    training.becomes("failed")
    platform.models.adopt()
    assert platform.registry.get(Model, output_model_id(training.id)) is None
    platform.jobs.delete(DEFAULT_WORKSPACE, training.id)
    assert not list(training.store.list(f"models/{output_model_id(training.id)}"))
    assert not list(training.store.list(f"jobs/{training.id}"))


def test_a_job_that_is_being_deleted_does_not_go_on(
    platform: Platform, begin: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin()
    training.writes_checkpoint(3)
    training.fails("the end")
    training.becomes("failed")
    delete_files = platform.jobs.delete_files

    def meanwhile(job: Job) -> list[Record]:
        for action in (platform.tuning.resume, platform.tuning.export, platform.jobs.delete):
            with pytest.raises(Conflict, match="is being deleted"):
                action(DEFAULT_WORKSPACE, job.id)
        return delete_files(job)

    monkeypatch.setattr(platform.jobs, "delete_files", meanwhile)
    platform.jobs.delete(DEFAULT_WORKSPACE, training.id)
    assert not platform.jobs.find(DEFAULT_WORKSPACE, type="finetune")


@pytest.mark.parametrize(
    ("fields", "status", "param", "told"),
    [
        ({"iterations": 100_001}, 400, "iterations", "less than or equal to 100000"),
        ({"iterations": 5, "epochs": 1.0}, 400, "epochs", "leave one of them out"),
        ({"learning_rate": 0.2}, 400, "learning_rate", "0.1"),
        ({"name": "v1.2"}, 400, "name", "starting with a letter"),
        ({"output_model_name": "7b"}, 400, "output_model_name", "starting with a letter"),
        ({"output_model_name": BASE}, 409, "output_model_name", "already"),
        ({"description": "x" * 1001}, 400, "description", "1000"),
        ({"dataset": {"uri": "s3://bucket/folder/"}}, 400, "dataset.uri", "a file, not a folder"),
        ({"machine_type": "tpu"}, 400, "machine_type", "cpu-small"),
        ({"auto_quantize": ["W4A8"]}, 400, "auto_quantize", "W4A8 is not offered"),
        ({"notify": {"topic": "ops"}}, 400, "notify.topic", "names no topic"),
        ({"model": "m-1"}, 400, "model", "not in the catalogue"),
        ({"model": "m-none"}, 404, "model", "no model"),
        ({"type": "train"}, 400, "type", "finetune"),
    ],
)  # fmt: skip
async def test_wishes_that_cannot_be_carried_out(
    admin: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str, told: str
) -> None:
    answer = await admin.post("/jobs", json=BODY | fields)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert error["param"] == param
    assert told in error["message"]


async def test_lists_of_a_wish_are_taken_as_json_has_them(admin: httpx.AsyncClient) -> None:
    lists = {"targets": ["q_proj", "v_proj"], "auto_quantize": ["W8A8_FP8"]}
    answer = await admin.post("/jobs", json=BODY | lists)
    assert answer.status_code == 202, answer.text
    assert lists.items() <= answer.json()["spec"].items()


async def test_a_quantized_model_is_for_deploying_only(admin: httpx.AsyncClient, platform: Platform) -> None:
    add_base(platform, "m-small", "AWQ-W4A16")
    error = (await admin.post("/jobs", json=BODY | {"model": "m-small"})).json()["error"]
    assert error["param"] == "model"
    assert "they are for deploying only" in error["message"]


async def test_a_developer_s_key_names_no_folder_of_others(
    admin: httpx.AsyncClient, client_for: Callable[[str], httpx.AsyncClient]
) -> None:
    key = (await admin.post("/api-keys", json={"role": "developer"})).json()["key"]
    developer = client_for(key)
    bucket = {"dataset": {"uri": "s3://bucket/facts.jsonl"}}
    for fields, param in (
        ({}, "dataset.uri"),
        ({**bucket, "output": {"uri": "file:///srv"}}, "output.uri"),
        ({**bucket, "output": {"uri": "s3://bucket/theirs"}, "overwrite": True}, "output.uri"),
        ({**bucket, "keep_logs": {"uri": "file:///srv"}}, "keep_logs.uri"),
    ):
        answer = await developer.post("/jobs", json=BODY | fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (403, param)


def test_two_jobs_do_not_make_models_of_one_name(platform: Platform) -> None:
    tune(platform)
    with pytest.raises(Conflict, match="is making a model named taught already"):
        tune(platform)


def test_a_stop_waits_for_a_checkpoint_and_the_job_goes_on_from_there(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training]
) -> None:
    training = begin()
    training.tells(40)
    platform.jobs.stop(DEFAULT_WORKSPACE, training.id)
    until(training.is_told_to_stop)
    assert not cluster.stopped
    training.writes_checkpoint(41)
    training.stops()
    assert training.becomes("stopped").reason == "it was stopped"
    platform.tuning.resume(DEFAULT_WORKSPACE, training.id)
    until(lambda: f"{training.id}-2" in cluster.submitted)
    training.becomes("running")
    assert not training.is_told_to_stop()
    training.completes()
    assert training.becomes("completed").output_model
    with pytest.raises(Conflict, match="only one that is stopped or failed"):
        platform.tuning.resume(DEFAULT_WORKSPACE, training.id)


def test_a_process_that_does_not_stop_is_ended(
    open_platform: Callable[..., Platform], cluster: FakeCluster, wall: WallClock
) -> None:
    platform = open_platform(now=wall)
    add_base(platform)
    training = Training(platform, cluster, tune(platform))
    training.becomes("running")
    platform.jobs.stop(DEFAULT_WORKSPACE, training.id)
    until(training.is_told_to_stop)
    assert not cluster.stopped
    wall.jump(seconds=601)
    training.becomes("stopped")
    assert cluster.stopped == {training.id}


def test_one_that_waits_for_machines_is_ended_at_once(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training]
) -> None:
    training = begin()
    waits = JobProgress(phase=WAITING_FOR_MACHINES)
    training.store.write(job_object(training.id, JOB_PROGRESS), waits.model_dump_json().encode())
    until(lambda: training.job.reason == WAITING_FOR_MACHINES)
    platform.jobs.stop(DEFAULT_WORKSPACE, training.id)
    training.becomes("stopped")
    assert cluster.stopped == {training.id}


def test_the_checkpoint_of_a_stopped_job_can_be_exported(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training]
) -> None:
    training = begin(export="manual")
    platform.jobs.stop(DEFAULT_WORKSPACE, training.id)
    until(training.is_told_to_stop)
    training.stops()
    training.becomes("stopped")
    with pytest.raises(Conflict, match="no checkpoint yet"):
        platform.tuning.export(DEFAULT_WORKSPACE, training.id)
    training.writes_checkpoint(7)
    assert platform.tuning.export(DEFAULT_WORKSPACE, training.id).state == "creating"
    until(lambda: f"{training.id}-2" in cluster.submitted)
    assert training.job.spec["finish"] is True
    training.completes()
    assert training.becomes("completed").output_model == output_model_id(training.id)


def test_a_manual_export_waits_for_its_word(platform: Platform, begin: Callable[..., Training]) -> None:
    training = begin(export="manual", auto_quantize=["W8A8_FP8"])
    training.completes(held=True)
    assert training.becomes("completed").output_model is None
    assert platform.registry.get(Model, output_model_id(training.id)) is None
    for _ in range(2):  # the first may have been cut off before the record was written
        exported = platform.tuning.export(DEFAULT_WORKSPACE, training.id)
        assert exported.output_model == output_model_id(training.id)
        platform.registry.put(exported.model_copy(update={"output_model": None}))
    assert [model.name for model in platform.registry.find(Model)].count("taught") == 1
    assert "auto_quantize" in kinds(platform, training.id)


def test_a_lost_process_begins_again_as_often_as_it_gets_further(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training]
) -> None:
    training = begin()
    for attempt in range(2, 8):
        training.writes_checkpoint(10 * attempt)
        cluster.run_becomes = "failed"
        until(lambda attempt=attempt: f"{training.id}-{attempt}" in cluster.submitted)
        cluster.run_becomes = "running"
        training.becomes("running")
    cluster.run_becomes = "failed"
    assert "ended 3 times" in training.becomes("failed").reason


def test_time_in_queues_and_preparation_does_not_count_for_auto_stop(
    platform: Platform, begin: Callable[..., Training]
) -> None:
    training = begin(auto_stop_s=3600)
    training.tells(40, iterated_s=3599.0)
    until(lambda: training.job.progress == 0.4)
    assert not training.is_told_to_stop()
    training.tells(41, iterated_s=3600.0)
    until(training.is_told_to_stop)
    assert "as auto_stop_s says" in training.job.reason
    training.stops()
    training.becomes("stopped")
    platform.tuning.resume(DEFAULT_WORKSPACE, training.id)  # for as long again
    training.becomes("running")
    training.tells(60, iterated_s=7199.0)
    until(lambda: training.job.progress == 0.6)
    assert training.job.state == "running"
    training.tells(61, iterated_s=7201.0)
    until(training.is_told_to_stop)


def test_a_hang_is_told_and_ends(open_platform: Callable[..., Platform], cluster: FakeCluster) -> None:
    seconds = [0.0]
    platform = open_platform(clock=lambda: seconds[0])
    add_base(platform)
    training = Training(platform, cluster, tune(platform))
    training.becomes("running")
    training.tells(40)
    seconds[0] += 3
    until(lambda: training.job.progress == 0.4)
    seconds[0] += 299
    seconds[0] += 3
    until(lambda: training.job.reason.startswith("it may hang"))
    assert training.job.state == "running"
    training.tells(41)
    seconds[0] += 3
    until(lambda: not training.job.reason)
    assert kinds(platform, training.id).count("hanging") == 1


def test_jobs_wait_visibly_for_room_by_priority(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training]
) -> None:
    cluster.nodes = rooms(0.3)
    first = begin()
    first.tells(1)
    cluster.nodes = rooms(0.06)
    low = Training(platform, cluster, tune(platform, output_model_name="low", priority="low"))
    until(lambda: "waiting for 0.25 CPU, 0.06 free" in low.job.reason)
    high = Training(platform, cluster, tune(platform, output_model_name="high", priority="high"))
    until(lambda: low.job.reason == f"waiting behind job {high.id}")
    assert {first.id} == set(cluster.submitted)
    first.completes()
    cluster.nodes = rooms(0.3)
    high.becomes("running")
    assert low.job.state == "queued"


def test_a_preemptible_job_leaves_for_an_endpoint_and_comes_back(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.nodes = rooms(1.0)
    stays, leaves = begin(), begin(output_model_name="other", preemptible=True)
    short = {"ep-1": platform.machines.get("cpu-small")}
    monkeypatch.setattr(platform.job_runner._long_runs, "_short", lambda: short)
    until(leaves.is_told_to_stop)
    assert leaves.job.reason == "its place goes to an endpoint that finds no room"
    leaves.writes_checkpoint(3)
    leaves.stops()
    until(lambda: leaves.job.reason == "waiting: an endpoint needs room first")
    assert (leaves.job.state, stays.job.state) == ("queued", "running")
    short.clear()
    leaves.becomes("running")
    assert f"{leaves.id}-2" in cluster.submitted
    assert not leaves.is_told_to_stop()


def test_an_endpoint_for_which_there_is_never_room_stops_no_job(platform: Platform, cluster: FakeCluster) -> None:
    for loop in platform.loops:
        loop.stop()
    cluster.nodes = rooms(0.1)
    for name, machine, told in (("small", "cpu-small", "0.25 CPU, 0.1 free"), ("large", "gpu-1", "1 x GPU, no node")):
        endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, EndpointSpec(name=name, model=BASE))
        update = {"machine_type": machine, "reason": f"the first unit is waiting for {told}"}
        platform.registry.put(endpoint.model_copy(update=update))
    platform.machines.look()
    assert [machine.name for machine in platform.job_runner._long_runs._short().values()] == ["cpu-small"]


async def test_the_estimate_goes_by_the_table_and_then_by_what_was_measured(
    admin: httpx.AsyncClient, platform: Platform, begin: Callable[..., Training]
) -> None:
    asked = {"model": "Qwen2-7B", "method": "full", "iterations": 1000, "flavor": "Ascend: 2*ascend-snt9b2(64GB)"}
    found = (await admin.post("/jobs:estimate", json=asked | {"instances": 2})).json()
    assert found["hours"] == [pytest.approx(36 * 1000 / (2 * 2 * 3200)), pytest.approx(36 * 1000 / (2 * 2 * 2300))]
    assert found["measured"] is None
    training = begin()
    training.completes()
    training.becomes("completed")
    found = (await admin.post("/jobs:estimate", json={"model": BASE, "iterations": 100})).json()
    assert found["documented"] is None
    assert found["hours"] == [4.0, 4.0]  # 36 x 100 / 900
    wrong = await admin.post("/jobs:estimate", json={"model": BASE, "epochs": 2.0})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "rows")


def test_the_log_is_kept_where_the_wish_says_and_here_for_a_month(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Training], tmp_path: Any
) -> None:
    training = begin(keep_logs={"uri": (tmp_path / "logs").as_uri()})
    cluster.written[training.id] = "iteration 1/2 | lm loss: 1.0 |\n"
    training.fails("the end")
    job: Job = training.becomes("failed")
    assert "lm loss" in (tmp_path / "logs" / f"{job.id}.log").read_text()
    cluster.written.clear()
    assert platform.job_logs.read(job).lines
    assert platform.job_logs.drop_before(job.created_at, 10) == 0
    assert platform.job_logs.drop_before(job.created_at + timedelta(days=1), 10) == 1
    assert not platform.job_logs.read(job).lines
    assert (tmp_path / "logs" / f"{job.id}.log").exists()
