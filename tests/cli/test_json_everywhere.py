"""Whatever a command prints, --json makes it one JSON text for programs."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.bench import run
from app.core.records import DEFAULT_WORKSPACE
from tests.cli.real_platform import Here
from tests.cli.runner import modelunit, options_of_commands, told
from tests.control_plane.platforms import until
from tests.deployable import write_config

CONFIRMED = ("--confirm", "DELETE")


def test_every_command_has_it() -> None:
    assert [path for path, options in options_of_commands() if "--json" not in options] == []


def test_what_is_removed(here: Here) -> None:
    endpoint = told("endpoints", "create", "demo", "--model", "m-1")["id"]
    gone = told("endpoints", "delete", "demo", *CONFIRMED)
    assert (gone["id"], gone["state"]) == (endpoint, "deleting")
    until(lambda: told("endpoints", "list", "--deleted"))
    assert told("endpoints", "delete", "demo", "--purge", *CONFIRMED)["id"] == endpoint
    model = told("models", "get", "m-1")["id"]
    assert told("models", "delete", "m-1", *CONFIRMED)["id"] == model

    key = told("keys", "create")["id"]
    assert told("keys", "revoke", key, *CONFIRMED) == {"id": key, "deleted": True}
    told("members", "add", "ada", "--role", "developer")
    assert told("members", "remove", "ada", *CONFIRMED) == {"id": "ada", "deleted": True}
    assert told("members", "clear", *CONFIRMED) == {"deleted": True}
    workspace = told("workspaces", "create", "shop")["id"]
    assert told("workspaces", "delete", workspace, *CONFIRMED) == {"id": workspace, "deleted": True}


def test_jobs(here: Here, tmp_path: Path) -> None:
    folder = write_config(tmp_path / "mine")
    told("models", "create", "mine", "--base-model", "SmolLM2-135M-Instruct", "--source", str(folder), "--no-wait")
    (job,) = [job for job in told("jobs") if job["model_name"] == "mine"][:1]
    until(lambda: here.cluster.submitted)
    here.cluster.written = dict.fromkeys(here.cluster.submitted, "one\ntwo\n")
    assert [line["message"] for line in told("jobs", "logs", job["id"])] == ["one", "two"]
    assert [line["message"] for line in told("jobs", "logs", job["id"], "--search", "TW")] == ["two"]
    assert modelunit("jobs", "logs", job["id"], "--follow", "--json").exit_code == 2
    assert told("jobs", "stop", job["id"])["id"] == job["id"]
    assert here.platform.jobs.find(DEFAULT_WORKSPACE)


def test_down(home: Path) -> None:
    assert told("down") == {"stopped_processes": 0}


def test_the_benchmark(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "output_tokens_per_s_c1", "ours": 1.0}]

    def played(home: Path, rounds: int, say: Any, only: str | None) -> Any:
        print("a table")
        return rows

    monkeypatch.setattr(run, "run", played)
    result = modelunit("bench-platform", "--json")
    assert json.loads(result.stdout) == rows
    assert "a table" in result.stderr
