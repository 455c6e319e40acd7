"""Which trace a job is part of."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_job_traces"
down_revision = "20261129_runner_memory"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "traceparent")
