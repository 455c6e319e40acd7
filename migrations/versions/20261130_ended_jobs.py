"""Which jobs have ended since, and which idempotency keys are old, without reading all of them."""

from alembic import op

revision = "20261130_ended_jobs"
down_revision = "20261130_storage_mark"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_finished", "jobs", ["finished_at"])
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_index("ix_jobs_finished", table_name="jobs")
