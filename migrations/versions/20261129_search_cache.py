"""What searches made that a later one goes on from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261129_search_cache"
down_revision = "20261129_provisional_artifacts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "search_cache",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("subjects", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "scope", "key", name=op.f("pk_search_cache")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_search_cache_workspace_id_workspaces")
        ),
    )
    op.create_index(op.f("ix_search_cache_file_id"), "search_cache", ["file_id"])


def downgrade() -> None:
    op.drop_table("search_cache")
