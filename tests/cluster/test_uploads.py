"""Weights brought to a running platform: real Ray jobs, the real validator, the demo model's own files."""

import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.bench.s3_server import S3_KEY, S3_SECRET
from tests.cluster.conftest import MODEL, Platform, until
from tests.s3 import Bucket
from tests.store.faulting_proxy import Fault, FaultingProxy, Request
from tests.weights.sound_folders import write_sound

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
WAIT_S = 90


@pytest.fixture
def weights(platform: Platform) -> Path:
    """The demo model's folder in the object store."""
    return platform.machine.home / "objects" / "models" / MODEL / "BF16"


@pytest.fixture
def copied(weights: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    folder = tmp_path / "mine"
    shutil.copytree(weights, folder)
    (folder / "manifest.json").unlink()
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Sound weights of 300 KB."""
    write_sound("llama", tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def in_bucket(platform: Platform, bucket: Bucket, tiny: Path) -> dict[str, str]:
    """The same in a bucket, as a source whose key the platform knows by name."""
    bucket.fill({path.name: path.read_bytes() for path in tiny.iterdir()})
    keys = f"aws_access_key_id = {S3_KEY}\naws_secret_access_key = {S3_SECRET}\n"
    platform.machine.aws_credentials.write_text(f"[theirs]\n{keys}")
    return {"uri": bucket.uri(), "endpoint_url": bucket.url, "addressing_style": "path", "profile": "theirs"}


def upload(platform: Platform, name: str, folder: Path) -> dict[str, Any]:
    return create(
        platform, {"name": name, "base_model": "SmolLM2-135M-Instruct", "source": {"uri": f"file://{folder}"}}
    )


def create(platform: Platform, body: dict[str, Any]) -> dict[str, Any]:
    answer = platform.http.post("/platform/v1/models", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def wait_for_model(platform: Platform, model_id: str, *states: str) -> dict[str, Any]:
    def settled() -> dict[str, Any] | None:
        model = dict(platform.http.get(f"/platform/v1/models/{model_id}").json())
        return model if model["state"] in states else None

    return dict(until(settled, f"{model_id} {states}", WAIT_S))


def remove(platform: Platform, model_id: str) -> None:
    platform.http.delete(f"/platform/v1/models/{model_id}?confirm=DELETE").raise_for_status()
    gone = lambda: platform.http.get(f"/platform/v1/models/{model_id}").status_code == 404  # noqa: E731
    until(gone, "the model is gone")


def test_good_weights_become_a_healthy_model_in_seconds(platform: Platform, copied: Path):
    started = time.monotonic()
    model = wait_for_model(platform, upload(platform, "mine", copied)["id"], "healthy", "failed")
    assert model["state"] == "healthy", model
    assert model["facts"]["parameters"] == 134_515_008
    assert model["size_bytes"] > 250 << 20
    assert not [found for found in model["findings"] if found["severity"] == "error"]
    print(f"uploaded in {time.monotonic() - started:.1f} s")
    jobs = platform.http.get(f"/platform/v1/models/{model['id']}/jobs").json()["data"]
    assert [(job["type"], job["state"]) for job in jobs] == [("validate", "completed"), ("upload", "completed")]
    page = platform.http.get(f"/platform/v1/models/{model['id']}").json()
    assert page["parameters"] == 134_515_008
    assert page["supports"]["tune"] == ["full", "lora"]
    assert page["supports"]["deploy"] is True
    for job, word in zip(jobs, ("validating", "copying"), strict=True):
        written = platform.http.get(f"/platform/v1/jobs/{job['id']}/logs", params={"download": "true"}).text
        assert word in written
        assert '"ok": true' in written.splitlines()[-1]
        assert str(platform.machine.home) not in written
        assert (platform.machine.home / "objects" / "jobs" / job["id"] / "log.txt").read_text() == written
    remove(platform, model["id"])
    assert not (platform.machine.home / "objects" / "models" / model["id"]).exists()


def test_broken_weights_fail_with_everything_that_is_wrong(platform: Platform, tiny: Path):
    (tiny / "config.json").write_text("{")
    (tiny / "generation_config.json").write_text("{")
    model = wait_for_model(platform, upload(platform, "broken", tiny)["id"], "healthy", "failed")
    assert model["state"] == "failed"
    assert {"config_unreadable", "generation_config_unreadable"} <= {found["code"] for found in model["findings"]}
    assert str(tiny) not in str(model["findings"])
    remove(platform, model["id"])


def test_a_killed_job_process_is_started_again_and_a_follower_sees_both(platform: Platform, copied: Path):
    model = upload(platform, "killed", copied)
    victim: psutil.Process = until(lambda: job_process(platform, "jobs.upload"), "the upload runs", WAIT_S)
    job = platform.http.get(f"/platform/v1/jobs?model_id={model['id']}&type=upload").json()["data"][0]
    logs = f"/platform/v1/jobs/{job['id']}/logs"
    with platform.http.stream("GET", logs, params={"follow": "true"}) as answer:
        assert answer.status_code == 200
        victim.kill()
        lines = [line for line in answer.iter_lines() if line]
    assert "--- attempt 2" in lines
    assert '"ok": true' in lines[-1]
    assert wait_for_model(platform, model["id"], "healthy", "failed")["state"] == "healthy"
    remove(platform, model["id"])


def test_a_folder_in_the_platform_s_own_store_can_stay_where_it_is(platform: Platform, weights: Path, tmp_path: Path):
    objects = platform.machine.home / "objects"
    theirs = objects / "theirs"
    shutil.copytree(weights, theirs, ignore=shutil.ignore_patterns("manifest.json"))
    body = {"name": "referred-to", "base_model": "SmolLM2-135M-Instruct", "mode": "reference"}
    refused = platform.http.post("/platform/v1/models", json=body | {"source": {"uri": f"file://{tmp_path}"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mode")

    started = create(platform, body | {"source": {"uri": f"file://{theirs}"}})
    model = wait_for_model(platform, started["id"], "healthy", "failed")
    assert model["state"] == "healthy", model
    assert model["size_bytes"] > 250 << 20
    published = objects / "models" / model["id"] / "BF16"
    assert [path.name for path in published.iterdir()] == ["manifest.json"]
    again = platform.http.post("/platform/v1/jobs", json={"type": "validate", "model": "referred-to"}).json()
    wait_for_job(platform, again["id"], "completed")
    remove(platform, model["id"])
    assert not published.exists()
    assert (theirs / "model.safetensors").exists()
    shutil.rmtree(theirs)


@pytest.mark.service
def test_weights_come_from_a_bucket(platform: Platform, in_bucket: dict[str, str], tiny: Path):
    started = create(platform, {"name": "from-s3", "base_model": "Tiny-Llama", "source": in_bucket})
    model = wait_for_model(platform, started["id"], "healthy", "failed")
    assert model["state"] == "healthy", model
    published = platform.machine.home / "objects" / "models" / model["id"] / "BF16"
    assert {path.name for path in published.iterdir()} == {"manifest.json", *(path.name for path in tiny.iterdir())}
    assert (published / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert S3_SECRET not in str(platform.http.get(f"/platform/v1/models/{model['id']}").json())
    remove(platform, model["id"])


@pytest.mark.service
def test_an_object_that_is_replaced_meanwhile_fails_the_upload_cleanly(
    platform: Platform, in_bucket: dict[str, str], bucket: Bucket, proxy: FaultingProxy
):
    def replace(request: Request) -> Fault | None:
        if request.method == "GET" and request.key.endswith("/model.safetensors"):
            proxy.plan = lambda _: None
            bucket.fill({"model.safetensors": b"others"})
        return None

    proxy.plan = replace
    source = in_bucket | {"endpoint_url": proxy.url}
    started = create(platform, {"name": "replaced", "base_model": "Tiny-Llama", "source": source, "validate": False})
    model = wait_for_model(platform, started["id"], "healthy", "failed")
    assert model["state"] == "failed"
    assert [(found["code"], found["file"]) for found in model["findings"]] == [("source_changed", "model.safetensors")]
    assert not (platform.machine.home / "objects" / "models" / model["id"] / "BF16" / "manifest.json").exists()
    remove(platform, model["id"])


@pytest.mark.service
def test_a_bucket_that_is_away_is_said_and_a_retry_completes(
    platform: Platform, in_bucket: dict[str, str], proxy: FaultingProxy
):
    proxy.plan = lambda _: Fault(status=503)
    source = in_bucket | {"endpoint_url": proxy.url}
    started = create(platform, {"name": "patient", "base_model": "Tiny-Llama", "source": source})
    model = wait_for_model(platform, started["id"], "healthy", "failed")
    assert (model["state"], model["reason"]) == ("failed", "The source cannot be read.")
    assert [(found["code"], "SlowDown" in found["found"]) for found in model["findings"]] == [
        ("source_unreadable", True)
    ]
    proxy.plan = lambda _: None
    assert platform.http.post(f"/platform/v1/models/{model['id']}:retry").status_code == 202
    assert wait_for_model(platform, model["id"], "healthy", "failed")["state"] == "healthy"
    remove(platform, model["id"])


def wait_for_job(platform: Platform, job_id: str, state: str) -> None:
    ended = ("completed", "failed", "stopped")
    find = lambda: dict(platform.http.get(f"/platform/v1/jobs/{job_id}").json())  # noqa: E731
    job = until(lambda: job if (job := find())["state"] in ended else None, f"{job_id} ends", WAIT_S)
    assert job["state"] == state, job


def job_process(platform: Platform, module: str) -> psutil.Process | None:
    for process in platform.machine.processes():
        try:
            if module in process.cmdline():
                return process
        except psutil.NoSuchProcess:
            continue
    return None
