"""Fine-tuning: what jobs measure and make, how their processes stand, and of which model another was made."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("origin", sa.String, nullable=False, server_default="uploaded"))
        models.add_column(sa.Column("parent_model_id", sa.String))
        models.add_column(sa.Column("job_id", sa.String))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("eta_s", sa.Float))
        jobs.add_column(sa.Column("metrics", sa.JSON, nullable=False, server_default="{}"))
        jobs.add_column(sa.Column("output_model", sa.String))
        jobs.add_column(sa.Column("run", sa.JSON, nullable=False, server_default="{}"))
