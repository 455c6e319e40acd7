"""Files that jobs delivered, and which of them were picked."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Text,
    and_,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.access.tables import WorkspaceRow
from app.blobs.tables import BlobRow
from app.database import Base
from app.jobs.tables import JobRow


class ArtifactRow(Base):
    __tablename__ = "artifacts"
    __table_args__ = (
        CheckConstraint("kind IN ('model', 'manifest', 'ort', 'plot')", name="kind"),
        CheckConstraint("(trial IS NULL) = (gain IS NULL)", name="provisional_has_gain"),
        Index("uq_artifacts_provisional", "job_id", unique=True, postgresql_where=text("trial IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id))
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id), index=True)
    blob_id: Mapped[UUID] = mapped_column(ForeignKey(BlobRow.id, onupdate="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(Text)
    file_name: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # Of the best that a search has found so far: what it was measured at. Null of what a job delivered in the end.
    trial: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    gain: Mapped[float | None] = mapped_column(Float)


def provisional(job_id: UUID) -> ColumnElement[bool]:
    """The best so far of a job: one row at most."""
    return and_(ArtifactRow.job_id == job_id, ArtifactRow.trial.is_not(None))


class PromotionRow(Base):
    """A model of a job that is over, picked to stand for it; the last one counts. A trigger lets rows only be added."""

    __tablename__ = "promotions"
    __table_args__ = (Index("ix_promotions_job_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id))
    artifact_id: Mapped[UUID] = mapped_column(ForeignKey(ArtifactRow.id), index=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
