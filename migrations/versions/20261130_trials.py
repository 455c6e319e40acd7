"""What a search tries is called a trial in what was stored before: in jobs that wait, reports and events."""

from alembic import op

revision = "20261130_trials"
down_revision = "20261130_ended_jobs"
branch_labels = None
depends_on = None

# Table, column, path in it of what holds the key, rows; the name before, and after. Jobs that are over keep what they were asked, and nobody reads it again.
# Those that run come last: their rows are locked from then on, and their heartbeats wait.
PLACES = (
    ("reports", "body", "{search}", "true", "attempts", "trials"),
    ("job_events", "data", "{}", "type IN ('attempt', 'trial', 'best')", "attempt", "trial"),
    ("jobs", "request", "{search}", "state IN ('queued', 'running')", "max_candidates", "max_trials"),
)


def upgrade() -> None:
    op.execute("UPDATE job_events SET type = 'trial' WHERE type = 'attempt'")
    for table, column, holder, rows, before, after in PLACES:
        _rename(table, column, holder, rows, before, after)


def downgrade() -> None:
    op.execute("UPDATE job_events SET type = 'attempt' WHERE type = 'trial'")
    for table, column, holder, rows, before, after in PLACES:
        _rename(table, column, holder, rows, after, before)


def _rename(table: str, column: str, holder: str, rows: str, before: str, after: str) -> None:
    held = f"{column} #> '{holder}'"
    renamed = f"({held}) - '{before}' || jsonb_build_object('{after}', {held} -> '{before}')"
    value = renamed if holder == "{}" else f"jsonb_set({column}, '{holder}', {renamed})"
    op.execute(f"UPDATE {table} SET {column} = {value} WHERE {rows} AND jsonb_typeof({held} -> '{before}') IS NOT NULL")  # noqa: S608 - names of our own
