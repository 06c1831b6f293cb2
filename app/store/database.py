"""The registry: records kept in SQLite or PostgreSQL. The control plane is its only writer."""

import fcntl
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    URL,
    Connection,
    Engine,
    ForeignKeyConstraint,
    Table,
    UniqueConstraint,
    bindparam,
    create_engine,
    delete,
    event,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError

from app.core.errors import Conflict
from app.core.records import Record
from app.store.tables import TABLES, metadata

R = TypeVar("R", bound=Record)

MIGRATIONS = Path(__file__).with_name("migrations")

_BUSY_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 10
_MIGRATION_LOCK = 0x6D6F64656C756E69
"""Any number that no other program takes as its PostgreSQL advisory lock: "modeluni" in ASCII."""
_UNIQUE_VIOLATIONS = {"SQLITE_CONSTRAINT_UNIQUE", "23505"}


class Registry:
    """All records, by kind and ID. Safe to share between threads; every call is one transaction."""

    def __init__(self, url: str) -> None:
        """Takes sqlite:///FILE (its folder is created) or postgresql://...; connects on first use.

        Raises ValueError for any other address.
        """
        self._url = _driver_url(url)
        self._engine = _open(self._url)
        self._writer = self._engine.execution_options(writes=True)

    def migrate(self) -> None:
        """Bring the schema to the newest version. Callers at the same moment, in any process, take turns."""
        engine = _open(self._url, migrating=True)
        try:
            with _turn(self._url), engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                command.upgrade(_migration_config(connection), "head")
        finally:
            engine.dispose()

    def close(self) -> None:
        """Give back all connections; a later call opens new ones."""
        self._engine.dispose()

    def put(self, *records: Record) -> None:
        """Insert each record, or replace the one with its ID: all of them, in any order, or none.

        Raises Conflict where another record has the same unique fields, or an owner does not exist.
        """
        with self._writer.begin() as connection:
            for table, group in _by_table(records):
                missing = (
                    f"One of the {_plural(table)} names a {_columns(table, ForeignKeyConstraint)} that does not exist."
                )
                taken = f"Another of the {_plural(table)} has the same {_columns(table, UniqueConstraint)}."
                with _conflicts(missing, taken):
                    connection.execute(_upsert(connection, table), [_to_row(table, record) for record in group])

    def get(self, kind: type[R], id: str, /) -> R | None:
        """The record of this kind with this ID."""
        found = self.find(kind, id=id)
        return found[0] if found else None

    def find(self, kind: type[R], /, **equals: object) -> list[R]:
        """The records whose fields equal the given values (None included), oldest first, then by ID.

        Raises ValueError for a field that is unknown or is a document.
        """
        table = TABLES[kind]
        query = select(table).order_by(table.c.created_at, table.c.id)
        for name, value in equals.items():
            if name not in table.c or isinstance(table.c[name].type, JSON):
                raise ValueError(f"{kind.__name__} cannot be looked up by '{name}'")
            query = query.where(table.c[name] == value)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        # By way of JSON, because strict specs take their nested parts as objects or as JSON, not as dicts.
        return [kind.model_validate_json(to_json(dict(row))) for row in rows]

    def delete(self, *records: Record) -> None:
        """Remove the records, all or none; one that is already gone is fine.

        Raises Conflict while a record that stays still refers to one of them.
        """
        with self._writer.begin() as connection:
            for table, group in reversed(_by_table(records)):
                with _conflicts(f"One of the {_plural(table)} still has records that refer to it."):
                    gone = delete(table).where(table.c.id == bindparam("key"))
                    connection.execute(gone, [{"key": record.id} for record in group])


def _driver_url(url: str) -> URL:
    with suppress(ArgumentError, ValueError):
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend in ("postgresql", "postgres"):
            patient = parsed.update_query_dict({"connect_timeout": str(_CONNECT_TIMEOUT_S), **parsed.query})
            return patient.set(drivername="postgresql+psycopg")
        if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
            return parsed.set(drivername="sqlite")
    # The address is not repeated: it may hold a password.
    raise ValueError("the registry's address must be sqlite:///FILE or postgresql://USER@HOST/DATABASE")


def _open(url: URL, *, migrating: bool = False) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)

    assert url.database is not None
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_S})

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
def _turn(url: URL) -> Iterator[None]:
    """Hold the lock file beside a SQLite file; the kernel lets it go with the process."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    with open(f"{url.database}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _migration_config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _by_table(records: Iterable[Record]) -> list[tuple[Table, list[Record]]]:
    """Records grouped by their tables, owners first."""
    groups: dict[Table, list[Record]] = defaultdict(list)
    for record in records:
        groups[TABLES[type(record)]].append(record)
    return [(table, groups[table]) for table in metadata.sorted_tables if table in groups]


def _to_row(table: Table, record: Record) -> Mapping[str, object]:
    plain = record.model_dump(mode="json")
    return {
        column.name: plain[column.name] if isinstance(column.type, JSON) else getattr(record, column.name)
        for column in table.columns
    }


def _upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    changed = {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=["id"], set_=changed)


@contextmanager
def _conflicts(otherwise: str, unique: str = "") -> Iterator[None]:
    """Turn a violated constraint into a Conflict that says `unique` or, for a missing owner, `otherwise`."""
    try:
        yield
    except IntegrityError as error:
        code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
        raise Conflict(unique if code in _UNIQUE_VIOLATIONS else otherwise) from error


def _plural(table: Table) -> str:
    return table.name.replace("_", " ")


def _columns(table: Table, kind: type[ForeignKeyConstraint] | type[UniqueConstraint]) -> str:
    """The columns of the table's only constraint of this kind, for people to read."""
    return " and ".join(
        column.name for found in table.constraints if isinstance(found, kind) for column in found.columns
    )
