"""Stored bytes, and the columns of whatever a user uploads."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    null,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column
from sqlalchemy.schema import SchemaItem
from uuid_utils.compat import uuid7

from app.access.tables import WorkspaceRow
from app.database import Base


class BlobRow(Base):
    """The same bytes are stored once a workspace. A key in storage is never used twice, so that deleting is safe."""

    __tablename__ = "blobs"
    __table_args__ = (
        UniqueConstraint("workspace_id", "sha256"),
        CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id))
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # Raised whenever the bytes come again, so that the collector leaves alone what somebody is about to refer to.
    touched_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    @property
    def storage_key(self) -> str:
        return storage_key(self.workspace_id, self.id)


class StorageMarkRow(Base):
    """What the storage of this database bears as well, and since when it does: the one row of its table."""

    __tablename__ = "storage_mark"
    __table_args__ = (CheckConstraint("single", name="single_row"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=true())
    id: Mapped[UUID]
    marked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def storage_key(workspace_id: UUID, blob_id: UUID) -> str:
    """Where a blob's bytes lie in storage."""
    return f"blobs/{workspace_id}/{blob_id}"


class UploadColumns:
    """What a model and a dataset have in common: bytes, and what inspection made of them.

    Deleting (`let_go`) keeps the row, which finished jobs refer to.
    """

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[SchemaItem, ...]:
        return (
            UniqueConstraint("workspace_id", "blob_id"),
            CheckConstraint("status IN ('inspecting', 'ready', 'rejected')", name="status"),
            CheckConstraint("(blob_id IS NULL) = (deleted_at IS NOT NULL)", name="deleted_lets_go"),
        )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id))
    # A good copy takes the place of a spoilt one under an id of its own, and takes along whoever refers to it.
    blob_id: Mapped[UUID | None] = mapped_column(ForeignKey(BlobRow.id, onupdate="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(Text)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Text, default="inspecting")
    inspection: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def let_go() -> dict[str, Any]:
    """What the columns of a deleted upload are set to: neither its bytes are kept nor what inspection read in them."""
    return {"blob_id": None, "deleted_at": func.now()} | nothing_read()


def nothing_read() -> dict[str, Any]:
    """What the columns are set to that hold what inspection read."""
    return {"inspection": null(), "problem": null()}
