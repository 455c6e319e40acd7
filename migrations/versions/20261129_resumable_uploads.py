"""Uploads that go on where they broke off."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_resumable_uploads"
down_revision = "20261129_audit_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resumable_uploads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("metadata_text", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("accepted_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('model', 'dataset')", name=op.f("ck_resumable_uploads_kind")),
        sa.CheckConstraint("offset_bytes BETWEEN 0 AND size_bytes", name=op.f("ck_resumable_uploads_offset_within")),
        sa.CheckConstraint(
            "(accepted_id IS NOT NULL) = (offset_bytes = size_bytes)",
            name=op.f("ck_resumable_uploads_whole_is_accepted"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resumable_uploads")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_resumable_uploads_workspace_id_workspaces")
        ),
    )
    op.create_index(op.f("ix_resumable_uploads_workspace_id"), "resumable_uploads", ["workspace_id"])
    op.create_index(op.f("ix_resumable_uploads_expires_at"), "resumable_uploads", ["expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("start_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "start_bytes", name=op.f("pk_upload_parts")),
        sa.UniqueConstraint("file_id", name=op.f("uq_upload_parts_file_id")),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["resumable_uploads.id"],
            name=op.f("fk_upload_parts_upload_id_resumable_uploads"),
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("upload_parts")
    op.drop_table("resumable_uploads")
