"""Weights brought to a running platform: real Ray jobs, the real validator, the demo model's own files."""

import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.conftest import MODEL, Platform, until

pytestmark = pytest.mark.cluster
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


def upload(platform: Platform, name: str, folder: Path) -> dict[str, Any]:
    body = {"name": name, "base_model": "SmolLM2-135M-Instruct", "source": {"uri": f"file://{folder}"}}
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
    remove(platform, model["id"])
    assert not (platform.machine.home / "objects" / "models" / model["id"]).exists()


def test_broken_weights_fail_with_everything_that_is_wrong(platform: Platform, copied: Path):
    (copied / "config.json").write_text("{")
    (copied / "generation_config.json").write_text("{")
    model = wait_for_model(platform, upload(platform, "broken", copied)["id"], "healthy", "failed")
    assert model["state"] == "failed"
    assert {"config_unreadable", "generation_config_unreadable"} <= {found["code"] for found in model["findings"]}
    assert str(copied) not in str(model["findings"])
    remove(platform, model["id"])


def test_a_killed_job_process_is_started_again(platform: Platform, copied: Path):
    model = upload(platform, "killed", copied)
    victim: psutil.Process = until(lambda: job_process(platform, "jobs.upload"), "the upload runs", WAIT_S)
    victim.kill()
    assert wait_for_model(platform, model["id"], "healthy", "failed")["state"] == "healthy"
    remove(platform, model["id"])


def job_process(platform: Platform, module: str) -> psutil.Process | None:
    for process in platform.machine.processes():
        try:
            if module in process.cmdline():
                return process
        except psutil.NoSuchProcess:
            continue
    return None
