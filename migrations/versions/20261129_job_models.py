"""Models that a recipe names beside the job's own."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_job_models"
down_revision = "20261129_job_checkpoints"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_models",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "model_id", name=op.f("pk_job_models")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_models_job_id_jobs")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_job_models_model_id_models")),
    )
    op.create_index(op.f("ix_job_models_model_id"), "job_models", ["model_id"])


def downgrade() -> None:
    op.drop_table("job_models")
