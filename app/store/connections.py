"""How a registry's database is reached: SQLite in a file, or PostgreSQL."""

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from app.store.rows import raw_json

BUSY_TIMEOUT_S = 5.0
"""How long a writer of SQLite waits for the one before it."""
POOL_TIMEOUT_S = 5.0
"""How long a call waits for one of the connections, all of which others hold."""
_PATIENCE = {
    "connect_timeout": "10",
    # A server that is gone without a word is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    # A writer that hangs in the middle of its transaction must not keep its successor from taking the turn.
    "options": "-c lock_timeout=120s -c idle_in_transaction_session_timeout=60s",
}
"""What libpq is told unless the address says otherwise."""


def driver_url(url: str) -> URL:
    """The address with its driver. Raises ValueError, which does not repeat it: it may hold a password."""
    with suppress(ArgumentError, ValueError):
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend in ("postgresql", "postgres"):
            told = {**_PATIENCE, **parsed.query}
            # Else the last hours of the year 9999 could be written and, east of Greenwich, never read again.
            told["options"] = " ".join((*_texts(told["options"]), "-c timezone=UTC"))
            return parsed.update_query_dict(told).set(drivername="postgresql+psycopg")
        if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
            return parsed.set(drivername="sqlite")
    raise ValueError("the registry's address must be sqlite:///FILE or postgresql://USER@HOST/DATABASE")


def _texts(one_or_more: str | Sequence[str]) -> Sequence[str]:
    return (one_or_more,) if isinstance(one_or_more, str) else one_or_more


def open_engine(url: URL, *, migrating: bool = False) -> Engine:
    """Connections to the database, made on first use; a SQLite file's folder is made now.

    With the execution option `writes`, a transaction on SQLite waits for the writers before it. Documents come
    as `raw_json`, except to migrations.
    """
    documents = None if migrating else raw_json
    if url.get_backend_name() == "postgresql":
        # Named, because a database may have another as its default, and a writer's check relies on this one.
        return create_engine(
            url,
            pool_pre_ping=True,
            pool_timeout=POOL_TIMEOUT_S,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            json_deserializer=documents,
        )

    assert url.database is not None
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_timeout=POOL_TIMEOUT_S,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        json_deserializer=documents,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # The driver would begin transactions late and leave DDL out of them; `begin` below does it.
        connection.isolation_level = None
        # A migration that rebuilds a table drops the old one, which must not cascade.
        connection.execute(f"PRAGMA foreign_keys={'OFF' if migrating else 'ON'}")
        if migrating:
            # Stays with the file. Two first connections that both switch would refuse each other, so only here.
            connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer asks for the lock at once: it then waits its turn, where a late upgrade would fail at once.
        writes = migrating or connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def sole_migrator(url: URL) -> Iterator[None]:
    """Hold the lock file beside a SQLite file; the kernel lets it go with the process."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    with open(f"{url.database}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
