"""How databases are reached, which addresses are taken, and what is said of one that cannot be used."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from app.core.errors import Unavailable
from app.core.records import Event
from app.store import connections
from app.store.connections import driver_url
from app.store.database import Registry
from tests.store.records import EVENT


def test_sqlite_writes_ahead_and_checks_keys(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    registry.migrate()
    with registry._engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    registry.close()
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}


@pytest.mark.parametrize("url", ["sqlite:///{folder}", "postgresql://u:secret@127.0.0.1:1/d"])
def test_a_database_that_cannot_be_used_is_unavailable(url: str, tmp_path: Path) -> None:
    registry = Registry(url.format(folder=tmp_path))  # a folder is no database
    for call in (lambda: registry.find(Event), lambda: registry.put(EVENT), registry.take_turn):
        with pytest.raises(Unavailable) as raised:
            call()
        assert str(raised.value) == "The registry cannot be used at the moment."


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "secret", "postgresql://u:secret@h:x/d"]
)
def test_other_addresses_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://USER@HOST") as refused:
        Registry(url)
    assert "secret" not in str(refused.value)


def test_postgresql_goes_by_its_third_driver_and_waits_for_nothing_for_ever() -> None:
    url = driver_url("postgresql://u:p@h/d?connect_timeout=3")
    assert (url.drivername, url.password, url.query["connect_timeout"]) == ("postgresql+psycopg", "p", "3")
    assert "idle_in_transaction_session_timeout" in str(url.query["options"])
    theirs = driver_url("postgresql://h/d?options=-c%20lock_timeout%3D1s")
    assert theirs.query["options"] == "-c lock_timeout=1s -c timezone=UTC"


def test_a_call_that_gets_no_connection_is_unavailable(
    open_registry: Callable[[], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that all wait for a slow database must not become faults of ours."""
    monkeypatch.setattr(connections, "POOL_TIMEOUT_S", 0.05)
    registry = open_registry()
    with ExitStack() as held:
        with suppress(Unavailable):
            while True:  # a pool has an end
                held.enter_context(registry._read())
        with pytest.raises(Unavailable):
            registry.find(Event)
    assert registry.find(Event) == []


@pytest.mark.parametrize("kind", [InterfaceError, InternalError, OperationalError])
def test_whatever_the_database_fails_with_is_unavailable(registry: Registry, kind: type[DBAPIError]) -> None:
    with pytest.raises(Unavailable), registry._read():
        raise kind("SELECT 1", {}, Exception("the connection is closed"))
