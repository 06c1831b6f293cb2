"""How long the starts of units took."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unit_starts",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("endpoint_id", sa.String, nullable=False),
        sa.Column("machine_type", sa.String, nullable=False),
        sa.Column("phases", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_unit_starts"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name="fk_unit_starts_endpoint_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_unit_starts_endpoint_id", "unit_starts", ["endpoint_id"])
