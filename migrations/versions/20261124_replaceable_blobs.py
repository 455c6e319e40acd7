"""A good copy of a blob takes the place of a spoilt one, for everything that refers to it."""

from alembic import op

REFERRING = ("models", "datasets", "artifacts")

revision = "20261124_replaceable_blobs"
down_revision = "20261124_worker_threads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _refer(onupdate="CASCADE")


def downgrade() -> None:
    _refer(onupdate=None)


def _refer(onupdate: str | None) -> None:
    for table in REFERRING:
        name = op.f(f"fk_{table}_blob_id")
        op.drop_constraint(name, table, type_="foreignkey")
        op.create_foreign_key(name, table, "blobs", ["blob_id"], ["id"], onupdate=onupdate)
