"""Of models and datasets that were deleted nothing is kept that inspection read in them."""

from alembic import op

revision = "20261130_deleted_uploads"
down_revision = "20261130_job_states"
branch_labels = None
depends_on = None

TABLES = ("models", "datasets")


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"UPDATE {table} SET inspection = NULL, problem = NULL WHERE deleted_at IS NOT NULL")  # noqa: S608 - names of our own


def downgrade() -> None:
    """What was read is gone, and nobody asks for it."""
