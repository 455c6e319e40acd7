"""Which resumable uploads are being made whole."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_upload_finishing"
down_revision = "20261130_uncompressed_json"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resumable_uploads", sa.Column("finishing_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("resumable_uploads", "finishing_until")
