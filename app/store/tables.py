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

from app.core.records import (
    ApiKey,
    AuditEntry,
    Counted,
    Endpoint,
    EndpointMinute,
    Event,
    Job,
    Member,
    Model,
    Record,
    Replay,
    ScalingDecision,
    UnitStart,
    UsageHour,
    UsageSpool,
    Version,
    Workspace,
)


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


def _count(name: str) -> Column[int]:
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
        _text("origin"),
        _text("parent_model_id", optional=True),
        _text("job_id", optional=True),
        _text("listing", optional=True),
    ),
    Version: _table(
        "versions",
        Column("model_id", String, ForeignKey("models.id"), nullable=False),
        _text("precision"),
        _text("prefix"),
        _text("digest"),
        _text("state"),
        _text("reason"),
        _text("job_id", optional=True),
        _document("recipe"),
        _document("quality"),
        _document("quality_failures"),
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
        _number("starting_units"),
        _number("target_units"),
        _text("machine_type"),
        _text("placement"),
        Column("updated_at", UtcDateTime),
        Column("running_since", UtcDateTime),
        Column("last_request_at", UtcDateTime),
        Column("idle_warned_at", UtcDateTime),
        Column("deleted_at", UtcDateTime),
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
        Column("eta_s", Float),
        _document("metrics"),
        _text("output_model", optional=True),
        _document("run"),
        _document("findings"),
        Column("started_at", UtcDateTime),
        Column("finished_at", UtcDateTime),
        Index(None, "model_id"),
    ),
    Member: _table(
        "members",
        _owner(),
        _text("name"),
        _text("role"),
        Column("expires_at", UtcDateTime),
        UniqueConstraint("workspace", "name"),
    ),
    # No key on `member_id`: a member leaves together with their keys, in one transaction.
    ApiKey: _table(
        "api_keys",
        _owner(),
        _text("role"),
        _text("hash"),
        _text("prefix"),
        _text("description"),
        _document("endpoints"),
        _document("limits"),
        _text("member_id", optional=True),
        Column("expires_at", UtcDateTime),
        Column("last_used_at", UtcDateTime),
        UniqueConstraint("hash"),
    ),
    # Events go with their workspace, and outlive the record they tell of: hence no key on `subject`.
    Event: _table(
        "events",
        _owner(on_delete="CASCADE"),
        _text("subject"),
        _text("kind"),
        _text("message"),
        _text("actor"),
        _text("request_id"),
        Index(None, "subject", "created_at"),
        Index(None, "workspace", "created_at"),
        Index(None, "created_at"),
    ),
    # The audit outlives workspaces.
    AuditEntry: _table(
        "audit",
        _text("workspace"),
        _text("actor"),
        _text("request_id"),
        _text("action"),
        _text("subject"),
        _number("status"),
        Index(None, "workspace", "created_at"),
        Index(None, "created_at"),
    ),
    EndpointMinute: _table(
        "endpoint_minutes",
        Column("endpoint_id", String, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
        _document("figures"),
        Index(None, "endpoint_id", "created_at"),
        Index(None, "created_at"),
    ),
    UnitStart: _table(
        "unit_starts",
        Column("endpoint_id", String, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
        _text("machine_type"),
        _document("phases"),
        Index(None, "endpoint_id"),
    ),
    ScalingDecision: _table(
        "scaling_decisions",
        Column("endpoint_id", String, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
        _text("revision"),
        _document("signals"),
        _document("rules"),
        _document("timers"),
        _text("rule"),
        _text("bound"),
        _number("from_units"),
        _number("to_units"),
        Index(None, "endpoint_id", "created_at"),
        Index(None, "created_at"),
    ),
    Counted: _table(
        "counted",
        Column("started_at", Float, nullable=False),
        _document("counters"),
        Index(None, "created_at"),
    ),
    # Usage outlives workspaces, endpoints and keys.
    UsageHour: _table(
        "usage_hours",
        *(_text(name) for name in ("day", "workspace", "endpoint_id", "endpoint_name", "key_id", "key_description")),
        *(_count(name) for name in ("requests", "partial_requests")),
        *(_count(name) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")),
        Index(None, "workspace", "created_at"),
        Index(None, "created_at"),
    ),
    UsageSpool: _table("usage_spools", _bytes("taken_bytes"), Index(None, "created_at")),
    Replay: _table(
        "replays",
        _owner(on_delete="CASCADE"),
        _text("body_hash"),
        _text("record_id"),
        Index(None, "created_at"),
    ),
}

WRITER = Table("writer", metadata, Column("id", Integer, primary_key=True), Column("epoch", BigInteger, nullable=False))
"""One row: whose turn it is to write, see Registry.take_turn."""
