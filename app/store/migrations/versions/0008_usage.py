"""Usage by hour, and how much of each router's spool is in it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    texts = ("day", "workspace", "endpoint_id", "endpoint_name", "key_id", "key_description")
    sums = ("requests", "partial_requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    op.create_table(
        "usage_hours",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in texts),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in sums),
        sa.PrimaryKeyConstraint("id", name="pk_usage_hours"),
    )
    op.create_index("ix_usage_hours_workspace_created_at", "usage_hours", ["workspace", "created_at"])
    op.create_index("ix_usage_hours_created_at", "usage_hours", ["created_at"])
    op.create_table(
        "usage_spools",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("taken_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_spools"),
    )
    op.create_index("ix_usage_spools_created_at", "usage_spools", ["created_at"])
