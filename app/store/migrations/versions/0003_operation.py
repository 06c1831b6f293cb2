"""Operation: stop rules and tombstones of endpoints, members, audit, figures by minute, replays, the writer's turn."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)

# Append-only: an entry never changes, and goes only after 400 days. (A later migration that rebuilds the table on
# SQLite must make its triggers again.)
KEEP_AUDIT = {
    "sqlite": (
        """
        CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'audit entries never change'); END
        """,
        """
        CREATE TRIGGER audit_stays BEFORE DELETE ON audit WHEN OLD.created_at > datetime('now', '-400 days')
        BEGIN SELECT RAISE(ABORT, 'audit entries stay for 400 days'); END
        """,
    ),
    "postgresql": (
        """
        CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'audit entries never change and stay for 400 days' USING ERRCODE = '23001'; END $$
        """,
        """
        CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
        FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()
        """,
        """
        CREATE TRIGGER audit_stays BEFORE DELETE ON audit
        FOR EACH ROW WHEN (OLD.created_at > now() - interval '400 days') EXECUTE FUNCTION refuse_audit_change()
        """,
        """
        CREATE TRIGGER audit_is_never_emptied BEFORE TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
        """,
    ),
}


def upgrade() -> None:
    with op.batch_alter_table("endpoints") as endpoints:
        for name in ("starting_units", "target_units"):
            endpoints.add_column(sa.Column(name, sa.Integer, nullable=False, server_default="0"))
        endpoints.add_column(sa.Column("machine_type", sa.String, nullable=False, server_default="cpu-small"))
        endpoints.add_column(sa.Column("placement", sa.String, nullable=False, server_default=""))
        for name in ("updated_at", "running_since", "last_request_at", "idle_warned_at", "deleted_at"):
            endpoints.add_column(sa.Column(name, MOMENT, nullable=True))
    _take_over_machine_types()
    op.create_table(
        "members",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_members_workspace"),
        sa.UniqueConstraint("workspace", "name", name="uq_members_workspace_name"),
    )
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(sa.Column("endpoints", sa.JSON, nullable=False, server_default="null"))
        keys.add_column(sa.Column("member_id", sa.String, nullable=True))
        keys.add_column(sa.Column("last_used_at", MOMENT, nullable=True))
    with op.batch_alter_table("events") as events:
        events.add_column(sa.Column("actor", sa.String, nullable=False, server_default="platform"))
        events.add_column(sa.Column("request_id", sa.String, nullable=False, server_default=""))
    op.create_index("ix_events_workspace_created_at", "events", ["workspace", "created_at"])
    op.create_index("ix_events_created_at", "events", ["created_at"])
    op.create_table(
        "audit",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        *(
            sa.Column(name, sa.String, nullable=False)
            for name in ("workspace", "actor", "request_id", "action", "subject")
        ),
        sa.Column("status", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_workspace_created_at", "audit", ["workspace", "created_at"])
    op.create_index("ix_audit_created_at", "audit", ["created_at"])
    for statement in KEEP_AUDIT[op.get_bind().dialect.name]:
        op.execute(statement)
    op.create_table(
        "endpoint_minutes",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("endpoint_id", sa.String, nullable=False),
        sa.Column("figures", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_endpoint_minutes"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name="fk_endpoint_minutes_endpoint_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_endpoint_minutes_endpoint_id_created_at", "endpoint_minutes", ["endpoint_id", "created_at"])
    op.create_index("ix_endpoint_minutes_created_at", "endpoint_minutes", ["created_at"])
    op.create_table(
        "counted",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("counters", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_counted"),
    )
    op.create_index("ix_counted_created_at", "counted", ["created_at"])
    op.create_table(
        "replays",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("body_hash", sa.String, nullable=False),
        sa.Column("record_id", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replays"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_replays_workspace", ondelete="CASCADE"),
    )
    op.create_index("ix_replays_created_at", "replays", ["created_at"])
    writer = op.create_table(
        "writer",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_writer"),
    )
    op.bulk_insert(writer, [{"id": 1, "epoch": 0}])


def _take_over_machine_types() -> None:
    connection = op.get_bind()
    endpoints = sa.table("endpoints", sa.column("id"), sa.column("spec", sa.JSON), sa.column("machine_type"))
    for row in connection.execute(sa.select(endpoints.c.id, endpoints.c.spec)).all():
        change = sa.update(endpoints).where(endpoints.c.id == row.id)
        connection.execute(change.values(machine_type=row.spec["machine_type"]))
