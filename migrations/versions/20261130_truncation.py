"""What may not be deleted row by row may not be truncated either: no trigger of a row sees that."""

from alembic import op

revision = "20261130_truncation"
down_revision = "20261130_job_states"
branch_labels = None
depends_on = None

GUARD = """
CREATE FUNCTION guard_truncation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table %: what may not be deleted may not be truncated', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$
"""
# In the order in which transactions of the service write to them, or one of those and this would wait for each other.
TABLES = ("jobs", "promotions", "audit_log")


def upgrade() -> None:
    op.execute(GUARD)
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER guard_truncation BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION guard_truncation()"
        )


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TRIGGER guard_truncation ON {table}")
    op.execute("DROP FUNCTION guard_truncation()")
