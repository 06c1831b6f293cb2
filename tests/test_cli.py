"""`modelunit` without a platform, and against one that is played by a few small answers."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from typer.testing import CliRunner, Result

from app.cli import app
from app.local.platform import Running
from app.settings import Settings
from app.store.layout import find_manifests
from app.store.objects import open_store

ROOT = Path(__file__).parents[1]
KEY = "mu-" + "k" * 43
RAY_TOKEN = "ray-token"
ENDPOINTS = [
    {
        "id": f"ep-{n}", "name": f"name-{n}", "model": "m", "machine_type": "cpu-small", "state": "healthy",
        "reason": "[x]", "units": {"running": 1, "target": 1},
    }
    for n in range(3)
]  # fmt: skip
DEPLOYED = {
    "proxy_location": "HeadOnly",
    "http_options": {"host": "127.0.0.1", "port": 8001},
    "applications": {
        "control_plane": {
            "status": "RUNNING",
            "deployed_app_config": {
                "name": "control_plane",
                "import_path": "app.main:control_plane",
                "args": {
                    "endpoints": [
                        {"name": "name-0", "model": "m", "max_model_len": 2048},
                        {"name": "name-1", "model": "m"},
                    ]
                },
            },
        },
        "ep-0.r-1": {"status": "RUNNING", "deployed_app_config": None},
    },
}
"""What Serve says of itself: the endpoints of its config, and applications that did not come from a config."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELUNIT_HOME", str(tmp_path))
    for name in ("HTTP_PORT", "HTTP_HOST", "ADMIN_KEY", "OBJECT_STORE", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"MODELUNIT_{name}", raising=False)
    return tmp_path


def modelunit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


class Machine(ThreadingHTTPServer):
    """A platform and the Serve it runs on: is alive, lists endpoints in pages of two, takes one new config."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.deployed: dict[str, Any] | None = None
        self.fault: str | None = None
        self.asked = threading.Event()
        self.ended = threading.Event()

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """With the models of the config that was deployed last."""
        plane = self.deployed["applications"][0] if self.deployed else {"args": {"endpoints": []}}
        models = {endpoint["name"]: endpoint["model"] for endpoint in plane["args"]["endpoints"]}
        return [endpoint | {"model": models.get(str(endpoint["name"]), "m")} for endpoint in ENDPOINTS]


class Answers(BaseHTTPRequestHandler):
    """One request to the Machine."""

    server: Machine

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self._answer(200, {"status": "ok"})
        elif url.path == "/api/serve/applications/":
            self._answer(200 if self.headers["authorization"] == f"Bearer {RAY_TOKEN}" else 401, DEPLOYED)
        elif self.headers["authorization"] != f"Bearer {KEY}":
            self._answer(401, {"error": {"message": "This API key is not valid."}})
        elif self.server.fault == "silent":
            self.server.asked.set()
            self.server.ended.wait(60)
        elif self.server.fault == "closes":
            self.close_connection = True
        elif self.server.fault == "stranger":
            self._answer(200, ["welcome"])
        else:
            query = parse_qs(url.query)
            start, size = int(query.get("page_token", ["0"])[0]), int(query.get("page_size", ["2"])[0])
            token = str(start + size) if start + size < len(ENDPOINTS) else None
            endpoints = [e | {"generation": 1, "observed_generation": 1} for e in self.server.endpoints]
            if self.server.fault == "broken":
                endpoints[0] |= {"state": "abnormal", "reason": "a file is missing"}
            self._answer(200, {"data": endpoints[start : start + size], "next_page_token": token})

    def do_POST(self) -> None:
        model = self._body()["model"]
        self._answer(200, {"choices": [{"message": {"content": f"I am {model}."}}]})

    def do_PUT(self) -> None:
        self.server.deployed = self._body()
        self._answer(200, {})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.ended.set()
        server.shutdown()


@pytest.fixture
def platform(home: Path, machine: Machine) -> Running:
    key_file, token_file = home / "admin.key", home / "ray.token"
    key_file.write_text(f"{KEY}\n")
    token_file.write_text(RAY_TOKEN)
    url = f"http://127.0.0.1:{machine.server_port}"
    found = Running(
        base_url=url, endpoint_id="ep-0", admin_key_file=str(key_file), dashboard_url=url, ray_address="",
        ray_token_file=str(token_file), pids=[], run_id="none",
    )  # fmt: skip
    (home / "serve.json").write_text(found.model_dump_json())
    return found


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
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "endpoints"], cwd=ROOT,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert machine.asked.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", "interrupted\n")


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
