"""How many days a workspace keeps things, where that is not what holds for all."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_retention"
down_revision = "20261129_webhooks"
branch_labels = None
depends_on = None

NAMES = ("models_days", "datasets_days", "artifacts_days")


def upgrade() -> None:
    for name in NAMES:
        op.add_column("workspaces", sa.Column(name, sa.Integer(), nullable=True))


def downgrade() -> None:
    for name in NAMES:
        op.drop_column("workspaces", name)
