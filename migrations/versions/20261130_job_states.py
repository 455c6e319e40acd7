"""Jobs in one state are listed without reading those in others."""

from alembic import op

revision = "20261130_job_states"
down_revision = "20261130_trials"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_in_state", "jobs", ["workspace_id", "kind", "state", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_in_state", table_name="jobs")
