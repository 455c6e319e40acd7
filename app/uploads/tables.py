"""Uploads that are not over yet, and the parts of them that have arrived."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Text, func
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.access.tables import WorkspaceRow
from app.database import Base

PREFIX = "uploads"


class ResumableUploadRow(Base):
    """An upload that may be gone on with. It is whole exactly when what it became is there."""

    __tablename__ = "resumable_uploads"
    __table_args__ = (
        CheckConstraint("kind IN ('model', 'dataset')", name="kind"),
        CheckConstraint("offset_bytes BETWEEN 0 AND size_bytes", name="offset_within"),
        CheckConstraint("(accepted_id IS NOT NULL) = (offset_bytes = size_bytes)", name="whole_is_accepted"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id), index=True)
    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    metadata_text: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    # Raised by whoever appends, on condition that it is where he found it: of two writers one comes too late.
    offset_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    accepted_id: Mapped[UUID | None]
    # Whoever has the last bytes copies all parts: until then nobody else begins to. It ends by itself, should he die.
    finishing_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)


class UploadPartRow(Base):
    """Bytes that have arrived, in a file of their own; a whole upload has none any more."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[UUID] = mapped_column(ForeignKey(ResumableUploadRow.id, ondelete="CASCADE"), primary_key=True)
    start_bytes: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    file_id: Mapped[UUID] = mapped_column(unique=True)


def part_key(file_id: UUID) -> str:
    """Where a part's bytes lie in storage."""
    return f"{PREFIX}/{file_id}"
