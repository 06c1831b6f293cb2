"""The registry: records kept in SQLite or PostgreSQL. The control plane is its only writer."""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    Connection,
    ForeignKeyConstraint,
    Table,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, InternalError, OperationalError, TimeoutError

from app.core.errors import BadRequest, Conflict, Superseded, Unavailable
from app.core.records import Record
from app.store.connections import driver_url, open_engine, sole_migrator
from app.store.queries import added_up, beyond, conditions, lasting, ordered
from app.store.rows import RowReader, to_row
from app.store.tables import TABLES, WRITER, metadata

R = TypeVar("R", bound=Record)

MIGRATIONS = Path(__file__).with_name("migrations")

_MIGRATION_LOCK = 0x6D6F64656C756E69
"""Any number that no other program takes as its PostgreSQL advisory lock: "modeluni" in ASCII."""
_UNIQUE_VIOLATIONS = {"SQLITE_CONSTRAINT_UNIQUE", "23505"}
_REFUSED_BY_TRIGGER = {"SQLITE_CONSTRAINT_TRIGGER", "23001"}
_EPOCH = select(WRITER.c.epoch)

log = logging.getLogger(__name__)


class Registry:
    """All records, by kind and ID. Safe to share between threads; every call is one transaction.

    Every call raises Unavailable while the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Takes sqlite:///FILE (its folder is created) or postgresql://...; connects on first use.

        Raises ValueError for any other address.
        """
        self._url = driver_url(url)
        self._engine = open_engine(self._url)
        self._writer = self._engine.execution_options(writes=True)
        # SQLite lets whoever asks at the right moment write; a thread with many beside it could wait for ever.
        self._one_writer = threading.Lock()
        self._rows = RowReader()
        self._epoch: int | None = None

    def migrate(self) -> None:
        """Bring the schema to the newest version. Callers at the same moment, in any process, take turns."""
        engine = open_engine(self._url, migrating=True)
        try:
            with sole_migrator(self._url), engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                command.upgrade(migration_config(connection), "head")
        finally:
            engine.dispose()

    def close(self) -> None:
        """Give back all connections; a later call opens new ones."""
        self._engine.dispose()

    def take_turn(self) -> int:
        """Become the only writer: whoever was it before cannot write from now on. Returns the turn's number.

        Waits for a transaction that the one before is in. Turns count up; every turn's number is new.
        """
        with _usable(), self._one_writer, self._writer.begin() as connection:
            next_turn = update(WRITER).values(epoch=WRITER.c.epoch + 1).returning(WRITER.c.epoch)
            epoch: int = connection.execute(next_turn).scalar_one()
        self._epoch = epoch
        return epoch

    def check_turn(self) -> None:
        """Raises Superseded once another has taken the turn. One that never took it may write at any time."""
        if self._epoch is not None:
            with self._read() as connection:
                self._check_turn(connection.execute(_EPOCH).scalar_one())

    def put(self, *records: Record) -> None:
        """Insert each record, or replace the one with its ID: all of them, in any order, or none.

        Raises Conflict where another record has the same unique fields, or an owner does not exist;
        Superseded (so do all that write) once another has taken the turn.
        """
        self.change(put=records)

    def get(self, kind: type[R], id: str, /) -> R | None:
        """The record of this kind with this ID."""
        found = self.find(kind, id=id)
        return found[0] if found else None

    def find(
        self,
        kind: type[R],
        /,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        **equals: object,
    ) -> list[R]:
        """The records whose fields equal the given values, by time and then by ID: the oldest first, or the newest.

        A value None finds the records that have none, a list or tuple those that have any of its values.
        Only records made in [since, until) are found, and only those that come after the one with ID `after`
        in this order (the last one of the page before), `limit` at most.
        Raises ValueError for a field that is unknown or is a document, and for an `after` that there is not, or
        that belongs to others than the records asked for.
        """
        table = TABLES[kind]
        query = ordered(table, newest_first).where(*conditions(kind, equals, since, until)).limit(limit)
        with self._read() as connection:
            if after is not None:
                last = select(table.c.created_at).where(table.c.id == after, *conditions(kind, lasting(equals)))
                place = connection.execute(last).scalar_one_or_none()
                if place is None:
                    raise ValueError(f"there is no {kind.__name__} with the ID that the list shall go on after")
                query = query.where(beyond(table, place, after, newest_first))
            rows = connection.execute(query).all()
        return self._rows.records(kind, rows)

    def count(self, kind: type[Record], /, **equals: object) -> int:
        """How many records `find` would find. Raises ValueError as it does."""
        query = select(func.count()).select_from(TABLES[kind]).where(*conditions(kind, equals))
        with self._read() as connection:
            return connection.execute(query).scalar_one()

    def sums(
        self,
        kind: type[Record],
        /,
        of: Sequence[str],
        by: Sequence[str] = (),
        *,
        greatest: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        after: Sequence[object] | None = None,
        limit: int | None = None,
        **equals: object,
    ) -> list[Mapping[str, Any]]:
        """Fields of the records that `find` finds, added up by the values of other fields, in the order of those.

        `greatest`: further fields, of which each group shows the greatest value; `after`: the values of the group that
        the page before ended with. Without `by` everything is one group, also when there is nothing.
        """
        table = TABLES[kind]
        query = added_up(table, of, by, greatest, after).where(*conditions(kind, equals, since, until)).limit(limit)
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
        return [{**row, **{name: int(row[name]) for name in of}} for row in rows]  # PostgreSQL's sums are decimal

    def delete(self, *records: Record) -> None:
        """Remove the records, all or none; one that is already gone is fine.

        Raises Conflict while a record that stays still refers to one of them.
        """
        self.change(delete=records)

    def change(self, *, put: Iterable[Record] = (), delete: Iterable[Record] = ()) -> None:
        """Delete these records and put those, in this order: all of it or nothing. Raises as both do."""
        with self._write() as connection:
            _delete(connection, delete)
            _put(connection, put)

    def delete_before(self, kind: type[Record], moment: datetime, limit: int = 10_000) -> int:
        """Remove the oldest records made before `moment`, `limit` at most; returns how many those were.

        Raises Conflict while a record that stays still refers to one of them, and for audit entries that
        are too young to go.
        """
        table = TABLES[kind]
        oldest = ordered(table, False).with_only_columns(table.c.id).where(table.c.created_at < moment).limit(limit)
        with (
            self._write() as connection,
            _conflicts(table, f"One of the {_plural(table)} still has records that refer to it."),
        ):
            return connection.execute(delete(table).where(table.c.id.in_(oldest))).rowcount

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _usable(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """A transaction that is committed only if the turn is still ours."""
        with _usable(), self._one_writer, self._writer.begin() as connection:
            if self._epoch is not None:
                # Locked until the end: on PostgreSQL another's turn begins after this transaction, or before it
                # and is seen here. On SQLite every writer waits for the one before it anyway.
                self._check_turn(connection.execute(_EPOCH.with_for_update()).scalar_one())
            yield connection

    def _check_turn(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise Superseded("Another control plane has taken over.")


def migration_config(connection: Connection) -> Config:
    """Alembic's, for the migrations beside this file."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _put(connection: Connection, records: Iterable[Record]) -> None:
    for table, group in _by_table(records):
        missing = f"One of the {_plural(table)} names a {_columns(table, ForeignKeyConstraint)} that does not exist."
        taken = f"Another of the {_plural(table)} has the same {_columns(table, UniqueConstraint)}."
        with _conflicts(table, missing, taken):
            connection.execute(_upsert(connection, table), [to_row(table, record) for record in group])


def _delete(connection: Connection, records: Iterable[Record]) -> None:
    for table, group in reversed(_by_table(records)):
        with _conflicts(table, f"One of the {_plural(table)} still has records that refer to it."):
            gone = delete(table).where(table.c.id == bindparam("key"))
            connection.execute(gone, [{"key": record.id} for record in group])


def _by_table(records: Iterable[Record]) -> list[tuple[Table, list[Record]]]:
    """Records grouped by their tables, owners first."""
    groups: dict[Table, list[Record]] = defaultdict(list)
    for record in records:
        groups[TABLES[type(record)]].append(record)
    return [(table, groups[table]) for table in metadata.sorted_tables if table in groups]


def _upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    changed = {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=["id"], set_=changed)


@contextmanager
def _usable() -> Iterator[None]:
    """Turn trouble with the database itself, which passes or which an operator ends, into Unavailable.

    A value that PostgreSQL cannot keep, which SQLite would, becomes a BadRequest.
    """
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, TimeoutError) as error:
        log.error("the registry cannot be used: %s", getattr(error, "orig", error))
        raise Unavailable("The registry cannot be used at the moment.") from error
    except DataError as error:
        raise BadRequest("A value cannot be kept: a text must not hold the character NUL.") from error


@contextmanager
def _conflicts(table: Table, otherwise: str, unique: str = "") -> Iterator[None]:
    """Turn a violated constraint into a Conflict that says `unique` or, for a missing owner, `otherwise`."""
    try:
        yield
    except IntegrityError as error:
        code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
        if code in _REFUSED_BY_TRIGGER:
            raise Conflict(f"Entries of the {_plural(table)} stay as they are for their time.") from error
        raise Conflict(unique if code in _UNIQUE_VIOLATIONS else otherwise) from error


def _plural(table: Table) -> str:
    return table.name.replace("_", " ")


def _columns(table: Table, kind: type[ForeignKeyConstraint] | type[UniqueConstraint]) -> str:
    """The columns of the table's only constraint of this kind, for people to read."""
    return " and ".join(
        column.name for found in table.constraints if isinstance(found, kind) for column in found.columns
    )
