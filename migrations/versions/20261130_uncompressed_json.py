"""What rows say at length is stored as it is, so that its size is known without reading it."""

from alembic import op

revision = "20261130_uncompressed_json"
down_revision = "20261130_job_requests"
branch_labels = None
depends_on = None

COLUMNS = {
    "models": ("inspection", "problem"),
    "datasets": ("inspection", "problem"),
    "jobs": ("request", "error", "verdict", "summary"),
}


def upgrade() -> None:
    _store("EXTERNAL")


def downgrade() -> None:
    _store("EXTENDED")


def _store(how: str) -> None:
    """For what is written from now on; what lies there stays as it is."""
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE {how}")
