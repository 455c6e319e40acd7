"""The best that a search has found so far is an artifact while the job runs, and stays where it delivers nothing else."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261129_provisional_artifacts"
down_revision = "20261129_promotions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("artifacts", sa.Column("trial", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("artifacts", sa.Column("gain", sa.Float(), nullable=True))
    op.create_check_constraint(
        op.f("ck_artifacts_provisional_has_gain"), "artifacts", "(trial IS NULL) = (gain IS NULL)"
    )
    op.create_index(
        "uq_artifacts_provisional", "artifacts", ["job_id"], unique=True, postgresql_where=sa.text("trial IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("uq_artifacts_provisional", table_name="artifacts", postgresql_where=sa.text("trial IS NOT NULL"))
    op.drop_constraint(op.f("ck_artifacts_provisional_has_gain"), "artifacts", type_="check")
    op.drop_column("artifacts", "gain")
    op.drop_column("artifacts", "trial")
