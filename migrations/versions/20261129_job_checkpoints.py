"""What a job's passes that train would go on from."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_job_checkpoints"
down_revision = "20261124_ort_artifacts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_checkpoints",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_job_checkpoints")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_checkpoints_job_id_jobs")),
    )
    op.create_index(op.f("ix_job_checkpoints_file_id"), "job_checkpoints", ["file_id"])


def downgrade() -> None:
    op.drop_table("job_checkpoints")
