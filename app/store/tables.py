"""Where each kind of record is kept: one table per kind, one column per field."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem

from app.core.records import ApiKey, Endpoint, Event, Job, Model, Record, Version, Workspace


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: stored as UTC, read back as UTC with its time zone; a datetime without a zone is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.utcoffset() is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        # SQLite forgets the zone; PostgreSQL answers in the zone of the session.
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


# Constraints need names so that a later migration can drop them on both databases.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _text(name: str, *, optional: bool = False) -> Column[str]:
    return Column(name, String, nullable=optional)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _bytes(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _document(name: str) -> Column[object]:
    return Column(name, JSON, nullable=False)


def _owner(on_delete: str | None = None) -> Column[str]:
    return Column("workspace", String, ForeignKey("workspaces.id", ondelete=on_delete), nullable=False)


def _table(name: str, *rest: SchemaItem) -> Table:
    identity = Column("id", String, primary_key=True)
    return Table(name, metadata, identity, Column("created_at", UtcDateTime, nullable=False), *rest)


TABLES: Mapping[type[Record], Table] = {
    Workspace: _table("workspaces", _text("name"), UniqueConstraint("name")),
    Model: _table(
        "models",
        _owner(),
        _text("name"),
        _text("base_model"),
        _text("description"),
        _document("spec"),
        _text("state"),
        _text("reason"),
        _document("findings"),
        _document("facts"),
        _bytes("size_bytes"),
    ),
    Version: _table(
        "versions",
        Column("model_id", String, ForeignKey("models.id"), nullable=False),
        _text("precision"),
        _text("prefix"),
        _text("digest"),
        _text("state"),
        _text("reason"),
        UniqueConstraint("model_id", "precision"),
    ),
    Endpoint: _table(
        "endpoints",
        _owner(),
        _document("spec"),
        _text("managed_by"),
        _text("state"),
        _text("reason"),
        _number("generation"),
        _number("observed_generation"),
        _text("revision", optional=True),
        _number("running_units"),
    ),
    # No key on `model_id`: jobs tell of models that are gone.
    Job: _table(
        "jobs",
        _owner(),
        _text("type"),
        _text("name"),
        _text("model_id", optional=True),
        _text("model_name"),
        _text("state"),
        _text("reason"),
        _document("spec"),
        _number("attempts"),
        Column("progress", Float, nullable=False),
        _bytes("done_bytes"),
        _bytes("total_bytes"),
        _document("findings"),
        Column("started_at", UtcDateTime),
        Column("finished_at", UtcDateTime),
        Index(None, "model_id"),
    ),
    ApiKey: _table(
        "api_keys",
        _owner(),
        _text("role"),
        _text("hash"),
        _text("prefix"),
        _text("description"),
        Column("expires_at", UtcDateTime),
        UniqueConstraint("hash"),
    ),
    # Events go with their workspace, and outlive the record they tell of: hence no key on `subject`.
    Event: _table(
        "events",
        _owner(on_delete="CASCADE"),
        _text("subject"),
        _text("kind"),
        _text("message"),
        Index(None, "subject", "created_at"),
    ),
}
