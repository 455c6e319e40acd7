"""Searches deliver pictures of their front as well."""

from alembic import op

KINDS = ("model", "manifest", "ort")

revision = "20261129_plot_artifacts"
down_revision = "20261129_search_cache"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _allow(*KINDS, "plot")


def downgrade() -> None:
    _allow(*KINDS)


def _allow(*kinds: str) -> None:
    name = op.f("ck_artifacts_kind")
    op.drop_constraint(name, "artifacts", type_="check")
    op.create_check_constraint(name, "artifacts", f"kind IN ({', '.join(repr(kind) for kind in kinds)})")
