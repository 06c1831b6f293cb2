"""The machine that is played, with and without a platform on it, and a real control plane."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import waiting
from app.local.running import Running
from tests.cli.played_machine import KEY, RAY_TOKEN, Machine
from tests.cli.real_platform import Here
from tests.control_plane.platforms import publish_model, settings_in


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELUNIT_HOME", str(tmp_path))
    for name in ("HTTP_PORT", "HTTP_HOST", "ADMIN_KEY", "OBJECT_STORE", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"MODELUNIT_{name}", raising=False)
    return tmp_path


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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_file: Path) -> Iterator[Here]:
    settings = settings_in(tmp_path / "home")
    publish_model(settings)
    shutil.copy(migrated_file, settings.home / "registry.db")
    for name in ("HTTP_PORT", "HTTP_HOST", "ADMIN_KEY", "OBJECT_STORE", "DATABASE_URL", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"MODELUNIT_{name}", raising=False)
    monkeypatch.setenv("MODELUNIT_HOME", str(settings.home))
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    found = Here(settings)
    found.open()
    running = Running(
        base_url=found.url, endpoint_id=None, admin_key_file=str(settings.home / "admin.key"), dashboard_url="",
        ray_address="", ray_token_file="", pids=[], run_id="none",
    )  # fmt: skip
    (settings.home / "serve.json").write_text(running.model_dump_json())
    yield found
    found.close()
