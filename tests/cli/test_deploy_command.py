"""`modelunit deploy`: from a folder of weights to an endpoint, whatever comes in between."""

import json
import re
import threading
from pathlib import Path

import pytest

from app import client
from app.core import patience
from app.core.records import DEFAULT_WORKSPACE
from tests.cli.real_platform import Here, away, lost_answer, through
from tests.cli.runner import interrupt, modelunit, started, told
from tests.deployable import weights_arriving, write_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(client, "POLL_S", 0.01)
    return str(write_config(tmp_path / "mine"))


def test_a_folder_becomes_an_endpoint(here: Here, folder: str) -> None:
    options = ("--name", "mine", "--max-units", "2", "--timeout", "5m", "--json")
    with weights_arriving(here.platform):
        result = modelunit("deploy", "--model", folder, *options)
    assert result.exit_code == 0, result.stderr
    endpoint = json.loads(result.stdout)
    assert (endpoint["name"], endpoint["state"], endpoint["scale"]["max_units"]) == ("mine", "healthy", 2)


def test_progress_is_told_as_endpoints_create_tells_it(here: Here, folder: str) -> None:
    with weights_arriving(here.platform):
        by_create = modelunit("endpoints", "create", "demo", "--model", "m-1").stderr.splitlines()
        by_deploy = modelunit("deploy", "--model", folder).stderr.splitlines()
    for lines in (by_create, by_deploy):
        assert all(re.fullmatch(r"\[ *\d+\.\d s\] \S.*", line) for line in lines)
        assert lines[-1].endswith("] healthy")


def test_it_waits_while_the_control_plane_is_replaced(here: Here, folder: str) -> None:
    here.faults = [through, away, away, away]
    with weights_arriving(here.platform):
        result = modelunit("deploy", "--model", folder)
    assert result.exit_code == 0, result.stderr
    assert "the control plane does not answer; the wish stands" in result.stderr


@pytest.mark.parametrize("before", [away, lost_answer])
def test_a_request_without_an_answer_is_repeated_and_makes_one_endpoint(
    here: Here, folder: str, before: object
) -> None:
    here.faults = [before, before]  # type: ignore[list-item]
    made = told("deploy", "--model", folder, "--no-wait")
    assert [endpoint["id"] for endpoint in told("endpoints")] == [made["id"]]


def test_a_person_may_repeat_it_too(here: Here, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "OUTAGE_S", -1.0)
    here.faults = [lost_answer]
    lost = modelunit("deploy", "--model", folder, "--no-wait")
    assert lost.exit_code == 1
    key = re.search(r"--idempotency-key (\S+)", lost.stderr)
    assert key, lost.stderr
    made = told("deploy", "--model", folder, "--no-wait", "--idempotency-key", key[1])
    assert [endpoint["id"] for endpoint in told("endpoints")] == [made["id"]]


def test_what_cannot_serve_is_shown_and_ends_with_1(here: Here, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FAILED_FOR_S", 0.0)
    here.cluster.refuses = lambda endpoint_id: True
    with weights_arriving(here.platform):
        result = modelunit("deploy", "--model", folder, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "abnormal"


def test_it_waits_no_longer_than_it_is_told_to(here: Here, folder: str) -> None:
    result = modelunit("deploy", "--model", folder, "--timeout", "1s")
    assert result.exit_code == 1
    (endpoint,) = here.platform.endpoints.find(DEFAULT_WORKSPACE)
    assert f"{endpoint.id} does not serve after 1 s; the wish stands" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--machine-type", "cpu-small"], 2, "or none of them"),
        (["--base-model", "Nothing-1B"], 1, "not in the catalogue"),
        (["--timeout", "soon"], 2, "--timeout"),
    ],
)
def test_what_cannot_be_deployed_is_said(here: Here, folder: str, arguments: list[str], status: int, said: str) -> None:
    result = modelunit("deploy", "--model", folder, *arguments)
    assert result.exit_code == status, result.stderr
    assert said in result.stderr
    assert "idempotency" not in result.stderr


def interrupted(folder: str, asked: threading.Event | None) -> str:
    """What it says when it is interrupted; once it waits, or while it asks."""
    process = started("deploy", "--model", folder)
    assert process.stderr
    assert asked.wait(60) if asked else "scheduling" in process.stderr.readline()
    status, out, err = interrupt(process)
    assert (status, out) == (1, "")
    return err.splitlines()[-1]


def test_ctrl_c_names_the_endpoint(here: Here, folder: str) -> None:
    last = interrupted(folder, None)
    (endpoint,) = here.platform.endpoints.find(DEFAULT_WORKSPACE)
    assert last.startswith(f"interrupted; the wish stands and {endpoint.id} goes on")


def test_ctrl_c_claims_no_endpoint_that_nobody_has_heard_of(here: Here, folder: str) -> None:
    here.faults = [here.hangs]
    last = interrupted(folder, here.hanging)
    assert last.startswith("interrupted; an endpoint may have been made")
    assert "--idempotency-key" in last
