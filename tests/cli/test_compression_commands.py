"""`models quantize`, `versions`, `card`, `delete-version` and `jobs create quantize`, on a real control plane."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from app.core.records import DEFAULT_WORKSPACE, Job
from tests.cli.real_platform import Here
from tests.cli.runner import done, modelunit, told
from tests.control_plane.compressions import INT8, WORSE, Compressing
from tests.control_plane.platforms import WAIT_S, until
from tests.control_plane.trainings import BASE, add_base

QUANTIZE = ("models", "quantize", BASE, "--precision", INT8, "--machine-type", "cpu-small")


@pytest.fixture(autouse=True)
def base(here: Here) -> None:
    add_base(here.platform)


def played(here: Here, *arguments: str, end: Callable[[Compressing], Any]) -> Result:
    """A command that waits, while its job's process comes to this end."""
    results: list[Result] = []
    command = threading.Thread(target=lambda: results.append(modelunit(*arguments)))
    command.start()
    [job] = until(lambda: here.platform.registry.find(Job, type="quantize"))
    compressing = Compressing(here.platform, here.cluster, job)
    compressing.becomes("running")
    end(compressing)
    command.join(WAIT_S)
    return results[0]


def test_one_command_from_a_model_to_an_endpoint_that_serves_a_version(here: Here) -> None:
    result = played(here, *QUANTIZE, "--endpoint", "small", end=lambda job: job.completes())
    assert result.exit_code == 0, result.stderr
    assert "10 -> 10.2 (+2.00%)" in result.stdout
    assert "healthy" in result.stdout
    [endpoint] = here.platform.endpoints.find(DEFAULT_WORKSPACE, name="small")
    assert (endpoint.spec.model, endpoint.spec.precision, endpoint.state) == (BASE, INT8, "healthy")
    table = done("models", "versions", BASE)
    assert "perplexity +2.0%, KL 0.01" in table
    assert "cpu-small" in table
    card = done("models", "card", BASE, "--precision", INT8)
    for words in ("97.0% of 512 tokens", "270 -> 160 MiB", "200 -> 240 tokens/s, concurrency 8", "9 -> 8 of 10"):
        assert words in card
    assert told("models", "card", BASE, "--precision", INT8)["recipe"]["scaled_by"] == "channel"


def test_a_version_that_fails_its_gate_is_not_served_unless_that_is_accepted(here: Here) -> None:
    result = played(here, *QUANTIZE, "--endpoint", "small", end=lambda job: job.completes(WORSE))
    assert result.exit_code == 1
    assert WORSE in result.stdout
    assert "modelunit endpoints patch small --accept-quality" in result.stderr
    until(lambda: "accept_quality" in told("endpoints", "get", "small")["reason"])
    assert told("endpoints", "patch", "small", "--accept-quality")["state"]
    until(lambda: told("endpoints", "get", "small")["state"] == "healthy")


def test_a_job_that_fails_ends_the_command(here: Here) -> None:
    result = played(here, *QUANTIZE, end=lambda job: job.fails("no luck"))
    assert (result.exit_code, "no luck" in result.stdout) == (1, True)
    assert "failed" in done("models", "versions", BASE)


def test_an_endpoint_that_is_refused_stops_the_job(here: Here) -> None:
    refused = modelunit(*QUANTIZE, "--endpoint", "1", "--no-wait")
    assert refused.exit_code == 1
    assert "is stopped: the endpoint that was to serve" in refused.stderr
    [job] = here.platform.registry.find(Job, type="quantize")
    assert job.state in ("stopping", "stopped")


def test_the_job_by_its_own_command_and_from_a_file(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({"model": BASE, "precision": "AWQ-W4A16", "calibration_samples": 32}))
    job = told("jobs", "create", "quantize", "--spec", str(file), "--calibration-samples", "16", "--output", "small.1")
    assert (job["name"], job["spec"]["calibration_samples"]) == (f"AWQ-W4A16-{BASE}", 16)
    assert job["spec"]["output_model_name"] == "small.1"
    compressing = Compressing(here.platform, here.cluster, here.platform.jobs.get(DEFAULT_WORKSPACE, job["id"]))
    compressing.becomes("running")
    told("jobs", "stop", job["id"])
    until(compressing.is_told_to_stop)
    compressing.stops()
    compressing.becomes("stopped")
    assert "goes on" in done("jobs", "resume", job["id"])
    compressing.becomes("running")
    compressing.completes()
    made = compressing.becomes("completed").output_model
    assert told("models", "get", str(made))["parent_model_id"] == BASE
    assert "nobody can tell" in done("jobs", "estimate", "Llama2-13B", "--precision", "AWQ-W4A16")
    hours = done("jobs", "estimate", "Llama2-13B", "--precision", "AWQ-W4A16", "--machine-type", "gpu-1")
    assert hours.strip() == "AWQ-W4A16 of Llama2-13B on gpu-1: 1.00 to 1.00 hours (table 7-4 of the product's guide, " \
        "Llama2-13B)"  # fmt: skip


def test_a_version_can_be_removed(here: Here) -> None:
    made = told(*QUANTIZE, "--no-wait")
    compressing = Compressing(here.platform, here.cluster, here.platform.jobs.get(DEFAULT_WORKSPACE, made["job_id"]))
    compressing.becomes("running")
    refused = modelunit("models", "delete-version", BASE, "--precision", INT8, "--confirm", "DELETE")
    assert "stop its job first" in refused.stderr
    compressing.completes()
    compressing.becomes("completed")
    gone = told("models", "delete-version", BASE, "--precision", INT8, "--confirm", "DELETE")
    assert gone == {"object": "version", "id": f"{BASE}:{INT8}", "deleted": True}
    assert [version["precision"] for version in told("models", "versions", BASE)] == ["BF16"]
