"""Compression: which job makes a version, how it was made, and what that has cost."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("versions") as versions:
        versions.add_column(sa.Column("job_id", sa.String))
        versions.add_column(sa.Column("recipe", sa.JSON, nullable=False, server_default="null"))
        versions.add_column(sa.Column("quality", sa.JSON, nullable=False, server_default="null"))
        versions.add_column(sa.Column("quality_failures", sa.JSON, nullable=False, server_default="[]"))
