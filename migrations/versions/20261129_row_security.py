"""Row-level security: what serves a request sees and changes rows of one workspace, whatever a query forgets.

A request takes on the role `lathe_request` and says its workspace in `lathe.workspace_id`. Whoever owns the tables is not
held by their policies: workers, housekeeping and the command line look after all workspaces.
"""

from alembic import op
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

revision = "20261129_row_security"
down_revision = "20261129_retention"
branch_labels = None
depends_on = None

ROLE = "lathe_request"
# In a subquery, so that it is read once a statement and not once a row; an empty setting is none.
WORKSPACE = "(SELECT nullif(current_setting('lathe.workspace_id', true), '')::uuid)"
# Tables that say themselves whose a row is.
OWN = (
    "api_keys",
    "artifacts",
    "audit_log",
    "blobs",
    "datasets",
    "idempotency_keys",
    "jobs",
    "models",
    "resumable_uploads",
    "search_cache",
    "webhooks",
)
# Tables whose rows are of the workspace of another row: by which column, and of which table.
THROUGH = {
    "job_checkpoints": ("job_id", "jobs"),
    "job_datasets": ("job_id", "jobs"),
    "job_events": ("job_id", "jobs"),
    "job_models": ("job_id", "jobs"),
    "measurements": ("job_id", "jobs"),
    "promotions": ("job_id", "jobs"),
    "reports": ("job_id", "jobs"),
    "upload_parts": ("upload_id", "resumable_uploads"),
    "webhook_deliveries": ("webhook_id", "webhooks"),
}
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
# Where a request may do less with the rows of its own workspace. Who holds a row needs a right to update one of its
# columns; the policy lets no other id be written.
LESS = {
    "workspaces": "SELECT, UPDATE (id)",
    "api_keys": "SELECT (id, workspace_id, name, prefix, scopes, created_at, expires_at, revoked_at, last_used_at)",
}
# What a place in the queue is counted from: of other workspaces' jobs a request sees where they stand, and nothing else.
WAITING = "CREATE VIEW waiting_jobs AS SELECT id, workspace_id, queue, priority FROM jobs WHERE state = 'queued'"
REMEDY = f"""the user that migrates may not make the role `{ROLE}`, which requests take on, or may not take it on itself.
Once for this Postgres, as a superuser: CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO <the user in DATABASE_URL>;
then migrate again"""


def upgrade() -> None:
    _ensure_role()
    policies = {"workspaces": f"id = {WORKSPACE}"} | dict.fromkeys(OWN, f"workspace_id = {WORKSPACE}")
    policies |= {
        name: f"EXISTS (SELECT FROM {parent} WHERE {parent}.id = {name}.{column})"  # of those that it sees itself
        for name, (column, parent) in THROUGH.items()
    }
    for name, condition in policies.items():
        op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY of_workspace ON {name} TO {ROLE} USING ({condition})")
        op.execute(f"GRANT {LESS.get(name, RIGHTS)} ON {name} TO {ROLE}")
    op.execute(f"GRANT SELECT ON workers TO {ROLE}")
    op.execute(WAITING)
    op.execute(f"GRANT SELECT ON waiting_jobs TO {ROLE}")


def downgrade() -> None:
    """The role stays: it is of the whole server, and other databases may have it."""
    op.execute("DROP VIEW waiting_jobs")
    op.execute(f"REVOKE ALL ON workers FROM {ROLE}")
    for name in ("workspaces", *OWN, *THROUGH):
        op.execute(f"REVOKE ALL ON {name} FROM {ROLE}")
        op.execute(f"DROP POLICY of_workspace ON {name}")
        op.execute(f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY")


def _ensure_role() -> None:
    """Have the role, and be able to take it on. Raises CommandError where this user cannot have that."""
    known = op.get_bind().execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": ROLE})
    if known.first() is None:
        try:
            _try(f"CREATE ROLE {ROLE} NOLOGIN")
        except IntegrityError:
            pass  # another database of this server was migrated at the same moment
        except ProgrammingError as error:
            raise CommandError(REMEDY) from error
    try:
        _try(f"SET LOCAL ROLE {ROLE}", "RESET ROLE")
    except DBAPIError:
        try:
            _try(f"GRANT {ROLE} TO CURRENT_USER")
        except DBAPIError as error:
            raise CommandError(REMEDY) from error


def _try(*statements: str) -> None:
    connection = op.get_bind()
    with connection.begin_nested():
        for statement in statements:
            connection.execute(text(statement))
