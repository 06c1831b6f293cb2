"""`modelunit` without a platform, and against one that is played by two small answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.local.platform import Running
from app.settings import Settings

KEY = "mu-" + "k" * 43
ENDPOINTS = [{"id": f"ep-{n}", "name": f"name-{n}", "model": "m", "state": "healthy", "reason": ""} for n in range(3)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELUNIT_HOME", str(tmp_path))
    for name in ("HTTP_PORT", "HTTP_HOST", "ADMIN_KEY"):
        monkeypatch.delenv(f"MODELUNIT_{name}", raising=False)
    return tmp_path


def modelunit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


class Platform(BaseHTTPRequestHandler):
    """Is alive, and lists endpoints in pages of two to the holder of KEY."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self._answer(200, {"status": "ok"})
        elif self.headers["authorization"] != f"Bearer {KEY}":
            self._answer(401, {"error": {"message": "This API key is not valid."}})
        else:
            start = int(parse_qs(url.query).get("page_token", ["0"])[0])
            token = str(start + 2) if start + 2 < len(ENDPOINTS) else None
            self._answer(200, {"object": "list", "data": ENDPOINTS[start : start + 2], "next_page_token": token})

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def platform(home: Path) -> Iterator[Running]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Platform) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        key_file = home / "admin.key"
        key_file.write_text(f"{KEY}\n")
        url = f"http://127.0.0.1:{server.server_port}"
        found = Running(
            base_url=url, endpoint_id="ep-0", admin_key_file=str(key_file), dashboard_url="", ray_address="",
            ray_token_file="", pids=[], run_id="",
        )  # fmt: skip
        (home / "serve.json").write_text(found.model_dump_json())
        yield found
        server.shutdown()


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
    assert json.loads(result.stdout) == ENDPOINTS
    assert all(endpoint["name"] in modelunit("endpoints").stdout for endpoint in ENDPOINTS)


def test_status_says_where_and_how(platform: Running) -> None:
    shown = json.loads(modelunit("status", "--json").stdout)
    assert (shown["base_url"], shown["endpoints"]) == (platform.base_url, ENDPOINTS)
    assert platform.base_url in modelunit("status").stdout


def test_a_refused_key_is_a_failure_with_the_reason(platform: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELUNIT_ADMIN_KEY", "mu-wrong")
    result = modelunit("endpoints")
    assert result.exit_code == 1
    assert "not valid" in result.stderr


def test_a_stale_state_file_is_no_platform(home: Path) -> None:
    (home / "serve.json").write_text("{")
    assert modelunit("status").exit_code == 1
    assert Settings.from_environ().home == home.resolve()


def test_env_prints_what_a_shell_can_take(home: Path) -> None:
    shown = modelunit("env")
    assert shown.exit_code == 0
    assert "export RAY_SERVE_LOG_TO_STDERR=0" in shown.stdout.splitlines()
    variables = json.loads(modelunit("env", "--json").stdout)
    assert len(shown.stdout.splitlines()) == len(variables)
