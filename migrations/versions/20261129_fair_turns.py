"""How many jobs of a workspace run at once, and when it was served last."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_fair_turns"
down_revision = "20261129_workspace_limits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("running_jobs", sa.Integer(), nullable=True))
    op.create_index(
        "ix_jobs_served",
        "jobs",
        ["workspace_id", "queue", "started_at"],
        postgresql_where=sa.text("started_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["workspace_id", "queue", "priority", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.drop_index("ix_jobs_served", table_name="jobs")
    op.drop_column("workspaces", "running_jobs")
