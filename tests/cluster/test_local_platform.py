"""`modelunit up` and `down` as a person at a terminal sees them."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import Machine, Platform, alive

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_a_running_platform_is_found_and_said_so(platform: Platform) -> None:
    before = platform.machine.state()
    again = platform.machine.run("up")
    assert again.returncode == 0
    assert "runs already" in again.stderr
    assert "Paris" in again.stdout
    assert before["base_url"] in again.stdout
    assert platform.machine.state()["endpoint_id"] == before["endpoint_id"]


def test_the_state_file_says_how_to_reach_everything(platform: Platform) -> None:
    state, written = platform.machine.state(), (platform.machine.home / "serve.json").stat().st_mtime
    assert platform.http.get("/healthz").status_code == 200
    assert platform.http.get("/readyz").json()["control_plane"] == "reachable"
    for secret in (state["admin_key_file"], state["ray_token_file"], platform.machine.home / "serve.json"):
        assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
    assert {process.pid for process in platform.machine.processes()} >= set(state["pids"]) - _ended(
        state["pids"], written
    )


def _ended(pids: list[int], written: float) -> set[int]:
    """Also those whose number another process has got since."""
    known = {process.pid: process for process in psutil.process_iter()}
    return {pid for pid in pids if pid not in known or not alive(known[pid]) or known[pid].create_time() > written}


def test_nothing_of_it_listens_beyond_loopback(platform: Platform) -> None:
    exposed = [
        (process.name(), connection.laddr)
        for process in platform.machine.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]
    assert exposed == []


def test_none_of_its_files_lies_where_others_may_write(platform: Platform) -> None:
    used = {Path(path) for process in platform.machine.processes() for path in _paths(process)}
    ray = Path((platform.machine.home / "run" / "ray_folder").read_text())
    assert any(path.is_relative_to(ray) for path in used)
    assert {str(folder) for path in used for folder in path.parents if _open_to_others(folder)} == set()


def _paths(process: psutil.Process) -> Iterator[str]:
    try:
        yield from (file.path for file in process.open_files())
        yield from (str(unix.laddr) for unix in process.net_connections("unix") if str(unix.laddr).startswith("/"))
    except psutil.NoSuchProcess:
        return


def _open_to_others(folder: Path) -> bool:
    """Anybody may put and replace files there (in /tmp only put), and comes that far."""
    private = any(not stat.S_IMODE(parent.stat().st_mode) & 0o077 for parent in folder.parents if parent.exists())
    mode = folder.stat().st_mode if folder.exists() else 0
    return bool(mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not private)


def test_rays_dashboard_refuses_strangers(platform: Platform) -> None:
    url = platform.machine.state()["dashboard_url"] + "/api/serve/applications/"
    assert platform.http.get(url, headers={"authorization": "Bearer wrong"}).status_code in (401, 403)


def test_a_port_in_use_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        machine = Machine(tmp_path, taken.getsockname()[1])
        failed = machine.run("up")
    assert failed.returncode == 1
    assert f"127.0.0.1:{machine.port} cannot be used" in failed.stderr
    assert "MODELUNIT_HTTP_PORT" in failed.stderr
    assert not (tmp_path / "run" / "run_id").exists()
