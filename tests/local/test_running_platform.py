"""A second `up` beside a platform that lives: it joins or refuses, and stops nothing that is in use."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app import processes
from app.local import StartFailed, platform
from app.local.ports import free_port
from app.local.running import Running
from app.settings import Settings

RUN_ID = "0123456789abcdef"


class SlowRouter(BaseHTTPRequestHandler):
    """Is well from the third question on."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.asked > 2 else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def listening() -> Iterator[str]:
    """HOST:PORT of a Ray, or of a router."""
    SlowRouter.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowRouter) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path, http_port=free_port())
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "run_id").write_text(RUN_ID)
    return settings


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """One of the platform's."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={processes.MARK: RUN_ID}
    ) as one:
        yield one
        one.kill()


@pytest.fixture
def tried(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `up` came to: joined the platform, or started another one after stopping what there was."""
    seen: list[str] = []

    def end(what: str) -> None:
        seen.append(what)
        raise StartFailed(what)

    monkeypatch.setattr(platform, "_join", lambda *_: end("joined"))
    monkeypatch.setattr(platform, "check_usable", lambda *_: end("started"))
    monkeypatch.setattr(platform, "RETURN_PATIENCE_S", 0.5)
    return seen


def record(settings: Settings, router: str, ray: str, *, served: bool = True) -> None:
    found = Running(
        base_url=f"http://{router}", endpoint_id=None, admin_key_file="", dashboard_url="", ray_address=ray,
        ray_token_file="", pids=[], run_id=RUN_ID, served=served,
    )  # fmt: skip
    (settings.home / "serve.json").write_text(found.model_dump_json())


def up(settings: Settings) -> str:
    with pytest.raises(StartFailed) as failed:
        platform.up(settings, None, lambda _: None)
    return str(failed.value)


def test_one_whose_router_is_away_is_left_alone(
    settings: Settings, process: "subprocess.Popen[bytes]", tried: list[str]
):
    with listening() as ray:
        record(settings, f"127.0.0.1:{free_port()}", ray)
        assert "modelunit down" in up(settings)
    assert (tried, process.poll()) == ([], None)


def test_one_whose_router_comes_back_is_joined(
    settings: Settings, process: "subprocess.Popen[bytes]", tried: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(platform, "RETURN_PATIENCE_S", 30)
    with listening() as address:
        record(settings, address, address)
        up(settings)
    assert (tried, process.poll()) == (["joined"], None)


def test_a_start_that_was_cut_off_gives_way(settings: Settings, process: "subprocess.Popen[bytes]", tried: list[str]):
    with listening() as ray:
        record(settings, f"127.0.0.1:{free_port()}", ray, served=False)
        up(settings)
    assert tried == ["started"]
    process.wait(10)


def test_what_outlives_its_ray_gives_way(settings: Settings, process: "subprocess.Popen[bytes]", tried: list[str]):
    record(settings, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    up(settings)
    assert tried == ["started"]
    process.wait(10)


def test_a_strangers_port_is_no_ray_of_ours(settings: Settings, tried: list[str]):
    with listening() as ray:
        record(settings, f"127.0.0.1:{free_port()}", ray)
        up(settings)
    assert tried == ["started"]
