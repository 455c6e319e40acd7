"""Workspaces and their API keys."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, DateTime, ForeignKey, Index, Integer, LargeBinary, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.database import Base


class WorkspaceRow(Base):
    __tablename__ = "workspaces"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(Text, unique=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # What it may take, where that is not what `LATHE_LIMITS_...` says for all; 0: no limit.
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    queued_jobs: Mapped[int | None] = mapped_column(Integer)
    running_jobs: Mapped[int | None] = mapped_column(Integer)
    # How long it keeps things, where that is not what `LATHE_RETENTION_...` says for all; 0: for ever.
    models_days: Mapped[int | None] = mapped_column(Integer)
    datasets_days: Mapped[int | None] = mapped_column(Integer)
    artifacts_days: Mapped[int | None] = mapped_column(Integer)


class ApiKeyRow(Base):
    """A key as the service keeps it: the prefix that finds it and the keyed hash that proves it, never the secret."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id), index=True)
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text, unique=True)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Action(StrEnum):
    """What the audit log tells of."""

    MODEL_CREATED = "model.created"
    MODEL_DELETED = "model.deleted"
    DATASET_CREATED = "dataset.created"
    DATASET_DELETED = "dataset.deleted"
    JOB_SUBMITTED = "job.submitted"
    JOB_CANCELLED = "job.cancelled"
    JOB_PROMOTED = "job.promoted"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    LIMITS_CHANGED = "limits.changed"
    RETENTION_CHANGED = "retention.changed"
    ARTIFACT_DELETED = "artifact.deleted"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_DELETED = "webhook.deleted"


class AuditRow(Base):
    """One thing that was done. A trigger lets rows only be added."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_listing", "workspace_id", "id"),
        Index("ix_audit_log_object", "object_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id))
    # Null: whoever runs the service, on the database itself.
    key_id: Mapped[UUID | None] = mapped_column(ForeignKey(ApiKeyRow.id))
    request_id: Mapped[str | None] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    object_id: Mapped[UUID]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
