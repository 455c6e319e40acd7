"""Which storage is this database's: the id that both bear."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_storage_mark"
down_revision = "20261130_upload_finishing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No request has a right to it: whoever owns the tables looks at it."""
    op.create_table(
        "storage_mark",
        sa.Column("single", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("single", name=op.f("ck_storage_mark_single_row")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_storage_mark")),
    )


def downgrade() -> None:
    op.drop_table("storage_mark")
