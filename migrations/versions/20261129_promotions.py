"""Which of a job's models was picked after its end."""

import sqlalchemy as sa
from alembic import op

GUARD = """
CREATE FUNCTION guard_promotion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'promotion %: promotions are only ever added', OLD.id USING ERRCODE = 'restrict_violation';
END
$$
"""
TRIGGER = (
    "CREATE TRIGGER guard_promotion BEFORE UPDATE OR DELETE ON promotions "
    "FOR EACH ROW EXECUTE FUNCTION guard_promotion()"
)

revision = "20261129_promotions"
down_revision = "20261129_job_models"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("artifact_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_promotions_job_id")),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_promotions_artifact_id")),
    )
    op.create_index("ix_promotions_job_id", "promotions", ["job_id", "id"])
    op.create_index(op.f("ix_promotions_artifact_id"), "promotions", ["artifact_id"])
    op.execute(GUARD)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.drop_table("promotions")
    op.execute("DROP FUNCTION guard_promotion()")
