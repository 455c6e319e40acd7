"""What a workspace may take, where that is not what holds for all."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_workspace_limits"
down_revision = "20261129_plot_artifacts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("workspaces", sa.Column("stored_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workspaces", sa.Column("queued_jobs", sa.Integer(), nullable=True))


def downgrade() -> None:
    for name in ("queued_jobs", "stored_bytes", "requests_per_minute"):
        op.drop_column("workspaces", name)
