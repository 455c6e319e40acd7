"""Jobs deliver a model in ONNX Runtime's own format as well."""

from alembic import op

KINDS = ("model", "manifest")

revision = "20261124_ort_artifacts"
down_revision = "20261124_replaceable_blobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _allow(*KINDS, "ort")


def downgrade() -> None:
    _allow(*KINDS)


def _allow(*kinds: str) -> None:
    name = op.f("ck_artifacts_kind")
    op.drop_constraint(name, "artifacts", type_="check")
    op.create_check_constraint(name, "artifacts", f"kind IN ({', '.join(repr(kind) for kind in kinds)})")
