"""`modelunit` without a platform, and against one that is played by a few small answers."""

import json
from pathlib import Path

import pytest
import yaml

from app.local.running import Running
from app.settings import Settings
from app.store.layout import find_manifests
from app.store.objects import open_store
from tests.cli.played_machine import DEPLOYED, ENDPOINTS, KEY, Machine
from tests.cli.runner import interrupt, modelunit, started


@pytest.mark.parametrize("command", ["status", "endpoints", "models"])
def test_without_a_platform_it_fails_and_says_so(home: Path, command: str) -> None:
    result = modelunit(command)
    assert result.exit_code == 1
    assert "no platform runs" in result.stderr


def test_down_without_a_platform_is_fine(home: Path) -> None:
    result = modelunit("down")
    assert (result.exit_code, result.stdout.strip()) == (0, "nothing was running")


@pytest.mark.parametrize("arguments", [["nonsense"], ["status", "--nonsense"], ["up", "--model", "/does/not/exist"]])
def test_wrong_usage_exits_with_2(home: Path, arguments: list[str]) -> None:
    assert modelunit(*arguments).exit_code == 2


def test_a_wrong_variable_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELUNIT_HTTP_PORT", "web")
    result = modelunit("status")
    assert result.exit_code == 2
    assert "MODELUNIT_HTTP_PORT" in result.stderr


def test_lists_are_read_to_the_last_page(platform: Running) -> None:
    result = modelunit("endpoints", "--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert [endpoint["id"] for endpoint in listed] == [endpoint["id"] for endpoint in ENDPOINTS]
    assert all(str(endpoint["name"]) in modelunit("endpoints").stdout for endpoint in ENDPOINTS)


def test_status_says_where_and_how(platform: Running) -> None:
    shown = json.loads(modelunit("status", "--json").stdout)
    assert (shown["base_url"], len(shown["endpoints"])) == (platform.base_url, len(ENDPOINTS))
    text = modelunit("status").stdout
    assert platform.base_url in text
    assert text.count("[x]") == len(ENDPOINTS)  # a reason is shown as it is, not as markup


@pytest.mark.parametrize("command", ["status", "endpoints", "models"])
@pytest.mark.parametrize(
    ("fault", "said"), [("closes", "does not answer as it should"), ("stranger", "is not a platform")]
)
def test_a_platform_that_does_not_answer_is_a_failure_with_a_line(
    platform: Running, machine: Machine, command: str, fault: str, said: str
) -> None:
    machine.fault = fault
    result = modelunit(command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_is_a_failure_without_a_stack_trace(platform: Running, machine: Machine) -> None:
    machine.fault = "silent"
    process = started("endpoints")
    assert machine.asked.wait(60)
    assert interrupt(process) == (1, "", "interrupted\n")


def test_a_refused_key_is_a_failure_with_the_reason(platform: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELUNIT_ADMIN_KEY", "mu-wrong")
    result = modelunit("endpoints")
    assert result.exit_code == 1
    assert "not valid" in result.stderr


def test_a_missing_key_file_is_named_and_what_replaces_it(platform: Running) -> None:
    Path(platform.admin_key_file).unlink()
    result = modelunit("endpoints")
    assert result.exit_code == 1
    assert platform.admin_key_file in result.stderr
    assert "MODELUNIT_ADMIN_KEY" in result.stderr


def test_a_stale_state_file_is_no_platform(home: Path) -> None:
    (home / "serve.json").write_text("{")
    assert modelunit("status").exit_code == 1
    assert Settings.from_environ().home == home.resolve()


def test_up_finds_a_platform_that_runs_and_chats_with_its_first_endpoint(platform: Running, machine: Machine) -> None:
    result = modelunit("up")
    assert result.exit_code == 0
    assert "runs already" in result.stderr
    assert "I am ep-0." in result.stdout
    assert platform.base_url in result.stdout
    assert f"$(cat {platform.admin_key_file})" in result.stdout
    assert machine.deployed is None


def test_the_line_to_paste_takes_the_key_from_where_it_is(platform: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(platform.admin_key_file).unlink()
    monkeypatch.setenv("MODELUNIT_ADMIN_KEY", KEY)
    result = modelunit("up")
    assert result.exit_code == 0
    assert "Bearer $MODELUNIT_ADMIN_KEY" in result.stdout
    assert "admin.key" not in result.stdout
    assert KEY not in result.stdout


def test_up_with_a_folder_on_a_platform_that_runs_serves_it_on_the_first_endpoint(
    platform: Running, machine: Machine, home: Path
) -> None:
    folder = home / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    result = modelunit("up", "--model", str(folder))
    assert result.exit_code == 0, result.stderr
    assert "name-0 is to serve My-Model" in result.stderr
    (manifest,) = find_manifests(open_store(Settings.from_environ()))
    assert manifest.name == "My-Model"
    assert machine.deployed == {
        "proxy_location": DEPLOYED["proxy_location"],
        "http_options": DEPLOYED["http_options"],
        "applications": [
            {
                "name": "control_plane",
                "import_path": "app.main:control_plane",
                "args": {
                    "endpoints": [
                        {"name": "name-0", "model": manifest.model_id, "max_model_len": 512},
                        {"name": "name-1", "model": "m"},
                    ]
                },
            }
        ],
    }
    assert yaml.safe_load((home / "serve_config.yaml").read_text()) == machine.deployed


def test_up_with_a_config_on_a_platform_that_runs_says_how_that_is_deployed(
    platform: Running, machine: Machine, home: Path
) -> None:
    config = home / "other.yaml"
    config.write_text("applications: [{name: control_plane, args: {endpoints: [{name: other, model: m}]}}]")
    result = modelunit("up", "--config", str(config))
    assert result.exit_code == 0
    assert "other.yaml is not deployed" in result.stderr
    assert "serve deploy" in result.stderr
    assert machine.deployed is None


def test_a_first_endpoint_that_cannot_work_is_a_failure_with_the_ways_out(platform: Running, machine: Machine) -> None:
    machine.fault = "broken"
    result = modelunit("up")
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "ep-0 is abnormal: a file is missing" in said
    assert "make serve MODEL=DIR" in said
    assert "modelunit down" in said
    assert "modelunit up --config" in said


def test_env_prints_what_a_shell_can_take(home: Path) -> None:
    shown = modelunit("env")
    assert shown.exit_code == 0
    assert "export RAY_SERVE_LOG_TO_STDERR=0" in shown.stdout.splitlines()
    variables = json.loads(modelunit("env", "--json").stdout)
    assert len(shown.stdout.splitlines()) == len(variables)
