"""Scaling: the decisions about how many units an endpoint is to have."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scaling_decisions",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("endpoint_id", sa.String, nullable=False),
        sa.Column("revision", sa.String, nullable=False),
        *(sa.Column(name, sa.JSON, nullable=False) for name in ("signals", "rules", "timers")),
        *(sa.Column(name, sa.String, nullable=False) for name in ("rule", "bound")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("from_units", "to_units")),
        sa.PrimaryKeyConstraint("id", name="pk_scaling_decisions"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name="fk_scaling_decisions_endpoint_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_scaling_decisions_endpoint_id_created_at", "scaling_decisions", ["endpoint_id", "created_at"])
    op.create_index("ix_scaling_decisions_created_at", "scaling_decisions", ["created_at"])
