"""Uploads: what was asked for and found out about a model; how far a job is."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("description", sa.String, nullable=False, server_default=""))
        models.add_column(sa.Column("spec", sa.JSON, nullable=False, server_default="null"))
        models.add_column(sa.Column("findings", sa.JSON, nullable=False, server_default="[]"))
        models.add_column(sa.Column("facts", sa.JSON, nullable=False, server_default="{}"))
        models.add_column(sa.Column("size_bytes", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("model_id", sa.String, nullable=True))
        jobs.add_column(sa.Column("model_name", sa.String, nullable=False, server_default=""))
        jobs.add_column(sa.Column("attempts", sa.Integer, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("progress", sa.Float, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("done_bytes", sa.BigInteger, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("total_bytes", sa.BigInteger, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("findings", sa.JSON, nullable=False, server_default="[]"))
        jobs.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
        jobs.add_column(sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_model_id", "jobs", ["model_id"])
