"""Compression jobs from the wish to the version that they make; their processes are played."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.control_plane.platform import Platform
from app.core.errors import Conflict, InvalidField, NotReady
from app.core.job_specs import output_model_id
from app.core.records import DEFAULT_WORKSPACE, AuditEntry, Event, Job, Model, Version
from app.core.specs import MachineType
from tests.control_plane.clocks import WallClock
from tests.control_plane.compressions import BODY, CARD, INT8, RECIPE, WORSE, Compressing, add_shaped_base, compress
from tests.control_plane.platforms import ONE_DATABASE, FakeCluster, change, spec, until
from tests.control_plane.trainings import BASE, BASE_MODEL, Training, add_base, rooms, tune

pytestmark = ONE_DATABASE
VERSION = f"{BASE}:{INT8}"


@pytest.fixture
def platform(open_platform: Callable[..., Platform]) -> Platform:
    platform = open_platform()
    add_base(platform)
    return platform


@pytest.fixture
def begin(platform: Platform, cluster: FakeCluster) -> Callable[..., Compressing]:
    """A job that compresses, as the API makes it."""

    def one(**fields: Any) -> Compressing:
        found = Compressing(platform, cluster, compress(platform, **fields))
        found.becomes("running")
        return found

    return one


def events(platform: Platform, subject: str) -> list[Event]:
    return platform.registry.find(Event, subject=subject)


async def test_a_compression_makes_a_version_with_its_card_and_recipe(
    admin: httpx.AsyncClient, platform: Platform, cluster: FakeCluster
) -> None:
    answer = await admin.post("/jobs", json=BODY, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202, answer.text
    assert (await admin.post("/jobs", json=BODY, headers={"Idempotency-Key": "one"})).json()["id"] == answer.json()[
        "id"
    ]
    job = Compressing(platform, cluster, platform.jobs.get(DEFAULT_WORKSPACE, answer.json()["id"]))
    assert (job.version.state, job.version.job_id) == ("creating", job.id)
    job.becomes("running")
    assert cluster.submitted == {job.id: f"python -m jobs.quantize --spec jobs/{job.id}/spec.json"}
    assert cluster.placed == {job.id: "cpu-small"}
    job.tells(15)
    until(lambda: job.job.progress == 0.5)
    shown = (await admin.get(f"/jobs/{job.id}")).json()
    assert (shown["eta_s"], shown["metrics"]["layer"], shown["machine_type"]) == (30.0, 15.0, "cpu-small")
    assert (shown["spec"]["precision"], shown["reason"]) == (INT8, "quantizing")

    manifest = job.completes()
    assert job.becomes("completed").output_model == BASE
    page = (await admin.get(f"/models/{BASE}")).json()
    assert [one["precision"] for one in page["versions"]] == ["BF16", INT8]
    made = (await admin.get(f"/models/{BASE}/versions/{INT8}")).json()
    assert (made["state"], made["digest"], made["job_id"]) == ("healthy", manifest.digest, job.id)
    assert made["quality"]["perplexity_after"] == CARD.perplexity_after
    assert made["recipe"]["keep"] == ["lm_head"]
    assert made["size_bytes"] == manifest.total_bytes
    assert {place["machine_type"]: place["servable"] for place in made["runs_on"]}["cpu-small"]
    assert made["supports"]["deploy"] is True
    assert "deploying only" in made["supports"]["why_not"]["compress"]
    assert [one.kind for one in events(platform, job.id)] == ["created", "queued", "running", "completed"]
    assert events(platform, BASE)[-1].message == f"{INT8} is healthy, made by {job.id}"


async def test_a_version_is_asked_for_on_its_model(
    admin: httpx.AsyncClient, platform: Platform, cluster: FakeCluster
) -> None:
    asked = {"precision": INT8, "migration_strength": 0.7}
    answer = await admin.post(f"/models/{BASE}/versions", json=asked, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["id"], made["state"]) == (VERSION, "creating")
    again = await admin.post(f"/models/{BASE}/versions", json=asked, headers={"Idempotency-Key": "one"})
    assert again.json()["job_id"] == made["job_id"]
    job = platform.jobs.get(DEFAULT_WORKSPACE, made["job_id"])
    assert (job.name, job.spec["spec"]["migration_strength"]) == (f"{INT8}-{BASE}", 0.7)  # type: ignore[index]
    refused = await admin.post(f"/models/{BASE}/versions", json=asked)
    assert (refused.status_code, job.id in refused.json()["error"]["message"]) == (409, True)


def test_a_new_model_has_the_version_alone_with_its_lineage(
    platform: Platform, begin: Callable[..., Compressing]
) -> None:
    job = begin(output_model_name="small")
    with pytest.raises(Conflict, match="is making a model named small already"):
        compress(platform, output_model_name="small")
    job.completes()
    made = job.becomes("completed").output_model
    assert made == output_model_id(job.id)
    model = platform.models.get(DEFAULT_WORKSPACE, "small")
    assert (model.id, model.parent_model_id, model.job_id, model.base_model) == (made, BASE, job.id, BASE_MODEL)
    [version] = platform.models.versions(model)
    assert (version.precision, version.quality, version.recipe) == (INT8, CARD, RECIPE)
    assert platform.registry.get(Version, VERSION) is None


@pytest.mark.parametrize(
    ("fields", "status", "param", "told"),
    [
        ({"precision": "BF16"}, 400, "precision", "SmoothQuant-W8A8"),
        ({"precision": "W4A8"}, 400, "precision", "W4A8 is not offered"),
        ({"migration_strength": 1.5}, 400, "migration_strength", "less than or equal to 1"),
        ({"precision": "AWQ-W4A16", "migration_strength": 0.5}, 400, "migration_strength", "leave it out"),
        ({"calibration": {"uri": "s3://bucket/folder/"}}, 400, "calibration.uri", "a file, not a folder"),
        ({"calibration_samples": 0}, 400, "calibration_samples", "1"),
        ({"description": "x" * 1001}, 400, "description", "1000"),
        ({"recipe": {"keep": ["../x"]}}, 400, "recipe.keep[0]", "pattern"),
        ({"output_model_name": BASE}, 409, "output_model_name", "already"),
        ({"machine_type": "tpu"}, 400, "machine_type", "cpu-small"),
        ({"notify": {"topic": "ops"}}, 400, "notify.topic", "names no topic"),
        ({"model": "m-1"}, 400, "model", "not in the catalogue"),
        ({"model": "m-none"}, 404, "model", "no model"),
        ({"name": "v1.2"}, 400, "name", "starting with a letter"),
        ({"type": "squeeze"}, 400, "type", "finetune, quantize, validate"),
    ],
)
async def test_wishes_that_cannot_be_carried_out(
    admin: httpx.AsyncClient, platform: Platform, fields: dict[str, Any], status: int, param: str, told: str
) -> None:
    answer = await admin.post("/jobs", json=BODY | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert told in error["message"]
    assert platform.registry.find(Job) == []


async def test_what_is_quantized_is_not_quantized_again(admin: httpx.AsyncClient, platform: Platform) -> None:
    add_base(platform, "m-small", "AWQ-W4A16")
    error = (await admin.post("/jobs", json=BODY | {"model": "m-small"})).json()["error"]
    assert (error["param"], "already" in error["message"] or "deploying only" in error["message"]) == ("model", True)


async def test_a_developer_s_key_names_no_folder_of_others(
    admin: httpx.AsyncClient, client_for: Callable[[str], httpx.AsyncClient]
) -> None:
    developer = client_for((await admin.post("/api-keys", json={"role": "developer"})).json()["key"])
    for fields, param in (
        ({"calibration": {"uri": "file:///data/facts.jsonl"}}, "calibration.uri"),
        ({"output": {"uri": "file:///srv"}}, "output.uri"),
        ({"keep_logs": {"uri": "file:///srv"}}, "keep_logs.uri"),
    ):
        for path, body in (("/jobs", BODY | fields), (f"/models/{BASE}/versions", {"precision": INT8} | fields)):
            answer = await developer.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (403, param)


def test_a_version_that_there_is_is_not_made_again_until_it_is_gone(
    platform: Platform, begin: Callable[..., Compressing]
) -> None:
    job = begin()
    with pytest.raises(Conflict, match=f"is being made by {job.id} already"):
        compress(platform)
    job.completes()
    job.becomes("completed")
    with pytest.raises(Conflict, match="has a version in SmoothQuant-W8A8 already, which is healthy"):
        compress(platform)
    endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, spec(model=BASE, precision=INT8))
    with pytest.raises(Conflict, match=f"in use by 1 endpoints: {endpoint.id}"):
        platform.compression.delete_version(DEFAULT_WORKSPACE, BASE, INT8)
    platform.endpoints.delete(DEFAULT_WORKSPACE, endpoint.id)
    until(lambda: platform.endpoints.find(DEFAULT_WORKSPACE, deleted=True))
    platform.tombstones.purge(DEFAULT_WORKSPACE, endpoint.id)
    platform.compression.delete_version(DEFAULT_WORKSPACE, BASE, INT8)
    assert platform.registry.get(Version, VERSION) is None
    assert not list(job.store.list(f"models/{BASE}/{INT8}/"))
    with pytest.raises(Conflict, match="is what model m-base is made of"):
        platform.compression.delete_version(DEFAULT_WORKSPACE, BASE, "BF16")
    platform.models.adopt()
    assert platform.registry.get(Version, VERSION) is None
    begin().completes()


def test_no_machine_or_memory_for_it_is_told_before_anything_is_loaded(
    open_platform: Callable[..., Platform], cluster: FakeCluster
) -> None:
    tight = MachineType(name="tight", memory_bytes=200 << 20)
    platform = open_platform(machine_types=[tight])
    cluster.nodes = rooms(8.0)
    add_shaped_base(platform)
    with pytest.raises(InvalidField, match=r"takes \d.\d GiB at its peak, and tight has 0.2 GiB") as refused:
        compress(platform, model="m-shaped", machine_type="tight")
    assert refused.value.param == "machine_type"
    with pytest.raises(InvalidField, match="needs widths that are multiples of 128"):  # 576 is not a multiple of 128
        compress(platform, model="m-shaped", precision="W8A8_FP8")
    assert platform.registry.find(Job) == []
    assert compress(platform, model="m-shaped").state == "creating"


def test_what_fails_its_gate_is_served_only_where_somebody_says_so(
    platform: Platform, begin: Callable[..., Compressing]
) -> None:
    job = begin()
    job.completes(WORSE)
    job.becomes("completed")
    assert (job.version.state, job.version.reason) == ("failed_quality", WORSE)
    assert job.version.quality_failures == (WORSE,)
    model = platform.models.get(DEFAULT_WORKSPACE, BASE)
    assert "accept_quality" in platform.models.supports(model, job.version).why_not["deploy"]
    with pytest.raises(Conflict, match=r"perplexity rose by 40.0 %") as refused:
        platform.endpoints.create(DEFAULT_WORKSPACE, spec(model=BASE, precision=INT8))
    assert (refused.value.param, refused.value.body()["error"]["code"]) == ("accept_quality", "failed_quality")  # type: ignore[index]


async def test_the_audit_keeps_who_accepts_a_loss_in_quality(
    admin: httpx.AsyncClient, platform: Platform, begin: Callable[..., Compressing]
) -> None:
    begin().completes(WORSE)
    until(lambda: platform.models.of_precision(platform.models.get(DEFAULT_WORKSPACE, BASE), INT8).quality)
    body = {"name": "worse", "model": BASE, "precision": INT8}
    assert (await admin.post("/endpoints", json=body)).status_code == 409
    answer = await admin.post("/endpoints", json=body | {"accept_quality": True})
    assert answer.status_code == 202, answer.text
    endpoint = answer.json()["id"]
    until(lambda: platform.endpoints.get(DEFAULT_WORKSPACE, endpoint).state == "healthy")
    [said] = [one for one in platform.registry.find(AuditEntry) if one.action.startswith("accept_quality")]
    assert (said.action, said.subject) == (f"accept_quality {VERSION}", endpoint)
    [event] = [one for one in events(platform, endpoint) if one.kind == "accept_quality"]
    assert (event.actor, WORSE in event.message) == (said.actor, True)

    refused = await admin.patch(f"/endpoints/{endpoint}", json={"accept_quality": False})
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "accept_quality")
    assert (await admin.patch(f"/endpoints/{endpoint}", json={"precision": "BF16"})).status_code == 200
    assert not platform.endpoints.get(DEFAULT_WORKSPACE, endpoint).spec.accept_quality
    back = await admin.patch(f"/endpoints/{endpoint}", json={"precision": INT8})  # said of another time
    assert back.status_code == 409
    back = await admin.patch(f"/endpoints/{endpoint}", json={"precision": INT8, "accept_quality": True})
    assert back.status_code == 200
    accepted = [one for one in platform.registry.find(AuditEntry) if one.action.startswith("accept_quality")]
    assert len(accepted) == 2


def test_an_endpoint_waits_for_its_version_and_is_told_why_it_does_not_come(
    platform: Platform, begin: Callable[..., Compressing]
) -> None:
    job = begin()
    endpoint = platform.endpoints.create(DEFAULT_WORKSPACE, spec(model=BASE, precision=INT8))
    job.tells(6)

    def now() -> Any:
        return platform.endpoints.get(DEFAULT_WORKSPACE, endpoint.id)

    until(lambda: "being made by" in now().reason)
    with pytest.raises(NotReady, match=f"made by {job.id}"):
        platform.models.version(DEFAULT_WORKSPACE, BASE, INT8)
    job.fails("out of patience")
    job.becomes("failed")
    assert job.version.state == "failed"
    until(lambda: "out of patience" in now().reason)
    platform.compression.resume(DEFAULT_WORKSPACE, job.id)
    until(lambda: f"{job.id}-2" in job.cluster.submitted)
    job.completes()
    until(lambda: now().state == "healthy")


def test_a_version_is_registered_once_also_by_a_control_plane_that_comes_later(
    open_platform: Callable[..., Platform], platform: Platform, begin: Callable[..., Compressing], cluster: FakeCluster
) -> None:
    job = begin()
    platform.job_loop.stop()  # killed before it hears of the end
    job.completes(WORSE)
    later = open_platform()  # which looks what lies in the store before it looks at jobs
    job = Compressing(later, cluster, job.job)
    job.becomes("completed")
    assert (job.version.state, job.version.quality) == ("failed_quality", CARD)
    later.models.adopt()
    assert job.version.state == "failed_quality"


def test_what_a_job_that_failed_has_published_is_nobody_s_and_goes_with_it(
    platform: Platform, begin: Callable[..., Compressing]
) -> None:
    job = begin()
    job.publishes()
    job.fails("killed in between")
    job.becomes("failed")
    platform.models.adopt()
    assert job.version.state == "failed"
    platform.jobs.delete(DEFAULT_WORKSPACE, job.id)
    assert platform.registry.get(Version, VERSION) is None
    assert not list(job.store.list(f"models/{BASE}/{INT8}"))


def test_another_job_may_make_what_one_did_not(platform: Platform, begin: Callable[..., Compressing]) -> None:
    first = begin()
    first.publishes()
    first.fails("no")
    first.becomes("failed")
    second = begin()
    assert not list(second.store.list(f"models/{BASE}/{INT8}/"))
    with pytest.raises(Conflict, match=f"being made by {second.id}"):
        platform.compression.resume(DEFAULT_WORKSPACE, first.id)
    platform.jobs.delete(DEFAULT_WORKSPACE, first.id)
    second.completes()
    second.becomes("completed")
    assert second.version.job_id == second.id
    platform.jobs.delete(DEFAULT_WORKSPACE, second.id)
    assert platform.registry.get(Version, VERSION)


def test_a_stop_waits_for_a_layer_and_the_job_goes_on_from_there(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Compressing]
) -> None:
    job = begin()
    job.tells(12)
    platform.jobs.stop(DEFAULT_WORKSPACE, job.id)
    until(job.is_told_to_stop)
    assert not cluster.stopped
    job.stops()
    assert job.becomes("stopped").reason == "it was stopped"
    assert job.version.state == "failed"
    platform.compression.resume(DEFAULT_WORKSPACE, job.id)
    assert job.version.state == "creating"
    until(lambda: f"{job.id}-2" in cluster.submitted)
    job.becomes("running")
    assert not job.is_told_to_stop()
    job.completes()
    job.becomes("completed")
    with pytest.raises(Conflict, match="only one that is stopped or failed"):
        platform.compression.resume(DEFAULT_WORKSPACE, job.id)
    with pytest.raises(Conflict, match="only fine-tuning"):
        platform.tuning.export(DEFAULT_WORKSPACE, job.id)


def test_auto_stop_counts_from_when_it_runs(
    open_platform: Callable[..., Platform], cluster: FakeCluster, wall: WallClock
) -> None:
    platform = open_platform(now=wall)
    add_base(platform)
    job = Compressing(platform, cluster, compress(platform, auto_stop_s=3600))
    job.becomes("running")
    until(lambda: job.job.started_at)
    change(platform, job.job, started_at=wall())
    assert not job.is_told_to_stop()
    wall.jump(seconds=3601)
    until(job.is_told_to_stop)
    assert "as auto_stop_s says" in job.job.reason
    job.stops()
    job.becomes("stopped")
    platform.compression.resume(DEFAULT_WORKSPACE, job.id)
    assert job.job.started_at is None


def test_a_hang_is_told(open_platform: Callable[..., Platform], cluster: FakeCluster) -> None:
    seconds = [0.0]
    platform = open_platform(clock=lambda: seconds[0])
    add_base(platform)
    job = Compressing(platform, cluster, compress(platform))
    job.becomes("running")
    job.tells(10)
    seconds[0] += 3
    until(lambda: job.job.metrics.get("layer") == 10)
    seconds[0] += 302
    until(lambda: job.job.reason == "it may hang: no layer for more than 300 s; one usually takes 2 s")
    job.tells(30, "measuring its quality")
    seconds[0] += 3
    until(lambda: job.job.reason == "measuring its quality")
    seconds[0] += 3600
    assert job.job.state == "running"
    assert [one.kind for one in events(platform, job.id)].count("hanging") == 1


def test_it_waits_for_a_machine_as_trainings_do(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Compressing]
) -> None:
    cluster.nodes = rooms(0.3)
    first = Training(platform, cluster, tune(platform))
    first.becomes("running")
    cluster.nodes = rooms(0.06)
    job = Compressing(platform, cluster, compress(platform))
    until(lambda: "waiting for 0.25 CPU, 0.06 free" in job.job.reason)
    assert job.id not in cluster.submitted
    cluster.nodes = rooms(0.6)
    job.becomes("running")


def tuned(platform: Platform, cluster: FakeCluster, **fields: Any) -> Training:
    training = Training(platform, cluster, tune(platform, auto_quantize=[INT8, "AWQ-W4A16"], **fields))
    training.becomes("running")
    return training


def test_a_tuning_has_its_model_compressed_once_also_by_a_control_plane_that_comes_later(
    open_platform: Callable[..., Platform], platform: Platform, cluster: FakeCluster
) -> None:
    training = tuned(platform, cluster)
    platform.job_loop.stop()  # killed before it hears of the end
    training.completes()
    later = open_platform()
    made = output_model_id(training.id)
    begun = until(lambda: [job for job in later.registry.find(Job, type="quantize") if job.attempts] or None)
    again = open_platform()
    until(lambda: len([job for job in again.registry.find(Job, type="quantize") if job.attempts]) == 2)
    jobs = again.registry.find(Job, type="quantize")
    assert {job.spec["precision"] for job in jobs} == {INT8, "AWQ-W4A16"}
    assert {job.model_id for job in jobs} == {made}
    assert begun[0].id in {job.id for job in jobs}
    states = {version.precision: version.state for version in again.registry.find(Version, model_id=made)}
    assert states == {"BF16": "healthy", INT8: "creating", "AWQ-W4A16": "creating"}
    assert [event.kind for event in events(again, training.id)].count("auto_quantize") == 2
    for job in jobs:
        compressing = Compressing(again, cluster, job)
        compressing.becomes("running")
        compressing.completes()
        compressing.becomes("completed")
    assert {version.state for version in again.registry.find(Version, model_id=made)} == {"healthy"}


def test_an_export_has_it_compressed_once(platform: Platform, cluster: FakeCluster) -> None:
    training = tuned(platform, cluster, export="manual")
    training.completes(held=True)
    training.becomes("completed")
    assert platform.registry.find(Job, type="quantize") == []
    for _ in range(2):  # the first may have been cut off before the record was written
        exported = platform.tuning.export(DEFAULT_WORKSPACE, training.id)
        platform.registry.put(exported.model_copy(update={"output_model": None}))
    assert len(platform.registry.find(Job, type="quantize")) == 2


async def test_the_estimate_goes_by_the_table_and_then_by_what_was_measured(
    admin: httpx.AsyncClient, platform: Platform, begin: Callable[..., Compressing], cluster: FakeCluster
) -> None:
    asked = {"type": "quantize", "model": "Llama2-13B", "precision": "AWQ-W4A16"}
    found = (await admin.post("/jobs:estimate", json=asked | {"machine_type": "gpu-1"})).json()
    assert (found["hours"], found["measured"]) == ([1.0, 1.0], None)
    assert "table 7-4" in found["documented"]["source"]
    on_cpu = (await admin.post("/jobs:estimate", json=asked | {"machine_type": "cpu-small"})).json()
    assert (on_cpu["hours"], on_cpu["documented"]) == (None, None)
    refused = await admin.post("/jobs:estimate", json=asked | {"precision": "W8A8_FP8"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "precision")
    unknown = await admin.post("/jobs:estimate", json=asked | {"type": "validate"})
    assert unknown.json()["error"]["message"] == "type is missing or unknown; allowed: finetune, quantize."
    job = begin()
    job.completes()
    done = job.becomes("completed")
    assert done.started_at is not None
    assert done.finished_at is not None
    found = (await admin.post("/jobs:estimate", json={"type": "quantize", "model": BASE, "precision": INT8})).json()
    took_h = (done.finished_at - done.started_at).total_seconds() / 3600
    assert found["hours"] == [pytest.approx(took_h), pytest.approx(took_h)]


def test_the_log_is_kept_where_the_wish_says(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Compressing], tmp_path: Any
) -> None:
    job = begin(keep_logs={"uri": (tmp_path / "logs").as_uri()})
    cluster.written[job.id] = "layer 1 of 30\n"
    job.fails("the end")
    job.becomes("failed")
    assert "layer 1 of 30" in (tmp_path / "logs" / f"{job.id}.log").read_text()


def test_a_lost_process_is_begun_again_three_times(
    platform: Platform, cluster: FakeCluster, begin: Callable[..., Compressing]
) -> None:
    job = begin()
    cluster.run_becomes = "failed"
    assert "ended 3 times" in job.becomes("failed").reason
    assert job.version.state == "failed"


def test_a_version_takes_what_its_own_weights_take(platform: Platform, begin: Callable[..., Compressing]) -> None:
    base = platform.models.get(DEFAULT_WORKSPACE, BASE)
    facts = base.facts.model_copy(update={"weights_bytes": 300 << 20, "kv_bytes_per_token": 1000})
    change(platform, base, facts=facts)
    job = begin()
    model = platform.registry.get(Model, BASE)
    assert model is not None
    being_made = platform.models.in_precision(model, INT8)
    assert (being_made.facts.weights_bytes, being_made.facts.kv_bytes_per_token) == (None, 1000)
    job.completes(weights_bytes=150 << 20)
    job.becomes("completed")
    assert platform.models.in_precision(model, INT8).facts.weights_bytes == 150 << 20
    assert platform.models.in_precision(model, "BF16").facts.weights_bytes == 300 << 20
