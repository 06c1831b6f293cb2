"""Which config a start takes, and what is kept of it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.local import StartFailed, serve_config
from app.settings import Settings


def config(name: str) -> dict[str, Any]:
    plane = {"name": "control_plane", "args": {"endpoints": [{"name": name, "model": "m"}]}}
    return {"http_options": {"host": "127.0.0.1", "port": 1}, "applications": [plane]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def name_of(found: dict[str, Any]) -> str:
    return str(serve_config.first_endpoint(found)["name"])


def test_the_first_start_takes_what_modelunit_comes_with(settings: Settings):
    assert name_of(serve_config.read(settings, None)) == "demo"


def test_a_later_start_takes_what_was_deployed_last(settings: Settings):
    serve_config.deployed_file(settings).write_text(yaml.safe_dump(config("added")))
    assert name_of(serve_config.read(settings, None)) == "added"


def test_a_given_config_comes_first(settings: Settings, tmp_path: Path):
    serve_config.deployed_file(settings).write_text(yaml.safe_dump(config("added")))
    given = tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump(config("given")))
    assert name_of(serve_config.read(settings, given)) == "given"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\xfa", b"applications: []", yaml.safe_dump(config("x") | {"http_options": 1}).encode()],
)
def test_a_kept_config_that_is_none_is_named_with_the_way_out(settings: Settings, content: bytes):
    file = serve_config.deployed_file(settings)
    file.write_bytes(content)
    with pytest.raises(StartFailed) as failed:
        serve_config.read(settings, None)
    assert str(file) in str(failed.value)
    assert f"modelunit up --config {serve_config.LOCAL}" in str(failed.value)


def deploy(settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int) -> dict[str, Any]:
    taken: list[dict[str, Any]] = []

    def put(url: str, json: dict[str, Any], **_: object) -> httpx.Response:
        taken.append(json)
        return httpx.Response(status, text="no", request=httpx.Request("PUT", url))

    monkeypatch.setattr(httpx, "put", put)
    serve_config.deploy(settings, "http://127.0.0.1:1", "token", config("added"), proxy_port=4321)
    return taken[0]


def test_a_start_deploys_its_own_port_keeps_that_and_logs_no_requests(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    taken = deploy(settings, monkeypatch, 200)
    assert taken["http_options"] == {"host": "127.0.0.1", "port": 4321}
    assert taken["logging_config"] == {"enable_access_log": False}
    assert serve_config.read(settings, None) == taken


def test_a_config_that_serve_refuses_is_not_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StartFailed, match="refused"):
        deploy(settings, monkeypatch, 400)
    assert name_of(serve_config.read(settings, None)) == "demo"
