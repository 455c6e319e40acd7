"""Workers say how many threads they give a model."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_worker_threads"
down_revision = "20261124_first"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null is a worker of the release before, which does not say.
    op.add_column("workers", sa.Column("threads", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "threads")
