"""Which request submitted a job."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_job_requests"
down_revision = "20261129_job_traces"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request_id", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "request_id")
