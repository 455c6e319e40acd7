"""What the runner of a job's last attempt took of memory."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_runner_memory"
down_revision = "20261129_row_security"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "peak_memory_bytes")
