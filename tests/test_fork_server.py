import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import fork_server
from tests.echo_server import SERVER
from tests.fork_servers import WAIT_S, end_servers, has_ended, servers, until


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """Under a path that is longer than a unix socket's may be."""
    run_dir = tmp_path / ("long-" * 12) / ("path-" * 12) / "run"
    yield run_dir
    end_servers(SERVER.module, run_dir)


def connect(run_dir: Path, *options: str) -> socket.socket:
    connection = SERVER.connect(run_dir, WAIT_S, lambda: SERVER.start(run_dir, os.environ, *options))
    connection.settimeout(WAIT_S)
    return connection


def ask(run_dir: Path, line: str, *options: str) -> tuple[socket.socket, list[str]]:
    """The connection, and the words of the answer's first line."""
    connection = connect(run_dir, *options)
    connection.sendall(f"{line}\n".encode())
    return connection, first_line(connection).split()


def first_line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n") and (part := connection.recv(1)):
        line += part
    return line.decode()


def log_of(run_dir: Path) -> Path:
    return run_dir.parent / "logs" / "echo-server.log"


def test_each_connection_has_a_child_of_its_own(run_dir: Path):
    one, (pid, said) = ask(run_dir, "wait one")
    two, (other_pid, other_said) = ask(run_dir, "wait two")
    with one, two:
        assert (said, other_said) == ("one", "two")
        (server,) = servers(SERVER.module, run_dir)
        assert {child.pid for child in server.children()} == {int(pid), int(other_pid)}
        assert os.getpgid(int(pid)) == int(pid)
    until(lambda: not server.children())


def test_the_socket_is_its_owners_only(run_dir: Path):
    ask(run_dir, "echo")[0].close()
    assert run_dir.joinpath(SERVER.socket_name).stat().st_mode & 0o777 == 0o600
    assert run_dir.stat().st_mode & 0o777 == 0o700


def test_a_second_server_ends_at_once(run_dir: Path):
    ask(run_dir, "echo")[0].close()
    (first,) = servers(SERVER.module, run_dir)
    SERVER.start(run_dir, os.environ)
    until(lambda: {server.pid for server in servers(SERVER.module, run_dir)} == {first.pid})
    ask(run_dir, "echo")[0].close()


def test_connections_wait_while_it_warms_up(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECHO_WARM_UP_S", "0.3")
    connection, (_, said) = ask(run_dir, "echo patient")
    connection.close()
    assert said == "patient"


def test_what_a_child_leaves_of_its_group_ends_with_it(run_dir: Path):
    connection, _ = ask(run_dir, "fork")
    with connection:
        grandchild = int(first_line(connection))
    until(lambda: has_ended(grandchild))


def test_children_die_with_the_server(run_dir: Path):
    connection, (pid, *_) = ask(run_dir, "wait")
    with connection:
        (server,) = servers(SERVER.module, run_dir)
        server.kill()
        until(lambda: has_ended(int(pid)))
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("line", "logged"),
    [
        ("refuse", "a request was refused"),
        ("kill me", "was ended by signal 9"),
        ("fail me", "echo of me failed"),
        ("x" * fork_server.REQUEST_LIMIT_BYTES * 2, "no whole line came"),
    ],
)
def test_trouble_is_logged_and_the_next_is_served(run_dir: Path, line: str, logged: str):
    with connect(run_dir) as connection:
        try:
            connection.sendall(f"{line}\n".encode())
            while connection.recv(1024):
                pass
        except ConnectionError:
            pass
    connection, (_, said) = ask(run_dir, "echo next")
    connection.close()
    assert said == "next"
    until(lambda: logged in log_of(run_dir).read_text())


def test_who_only_looks_whether_it_is_there_is_no_trouble(run_dir: Path):
    for _ in range(2):
        with contextlib.suppress(TimeoutError):
            SERVER.connect(run_dir, 0, lambda: SERVER.start(run_dir, os.environ)).close()
    connection, (_, said) = ask(run_dir, "echo next")
    connection.close()
    assert said == "next"
    assert "refused" not in log_of(run_dir).read_text()


def test_its_log_stays_small(run_dir: Path):
    for _ in range(10):
        connection, _ = ask(run_dir, "log 0123456789")
        while connection.recv(1024):
            pass
        connection.close()
    until(lambda: log_of(run_dir).stat().st_size <= fork_server.LOG_LIMIT_BYTES)


def test_it_ends_when_its_socket_is_gone(run_dir: Path):
    ask(run_dir, "echo")[0].close()
    (server,) = servers(SERVER.module, run_dir)
    run_dir.joinpath(SERVER.socket_name).unlink()
    until(lambda: has_ended(server.pid))


def test_an_idle_server_ends_and_the_next_request_starts_another(run_dir: Path):
    connection, (busy, *_) = ask(run_dir, "wait", "0.1")
    with connection:
        (server,) = servers(SERVER.module, run_dir)
        assert not has_ended(int(busy))
    until(lambda: has_ended(server.pid))
    assert not run_dir.joinpath(SERVER.socket_name).exists()
    ask(run_dir, "echo", "0.1")[0].close()


def test_a_server_that_never_comes_is_a_timeout(run_dir: Path):
    with pytest.raises(TimeoutError, match="the echo server did not answer within 0 s; see its log"):
        SERVER.connect(run_dir, 0.1, lambda: None)
