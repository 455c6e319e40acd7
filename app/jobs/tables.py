"""Jobs, and what they leave behind."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    column,
    func,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.access.tables import WorkspaceRow
from app.database import Base
from app.datasets.tables import DatasetRow
from app.logs import current_request_id
from app.models.tables import ModelRow
from app.tracing import current_traceparent


class JobRow(Base):
    """One job. A trigger keeps `version` and `updated_at`, and refuses an edge that is not in `states.py`."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("kind IN ('inspect_model', 'inspect_dataset', 'optimize')", name="kind"),
        CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')", name="state"),
        CheckConstraint("(state = 'running') = (lease_expires_at IS NOT NULL)", name="running_has_lease"),
        Index("ix_jobs_queued", "queue", "priority", "id", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_waiting", "workspace_id", "queue", "priority", "id", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_running", "lease_expires_at", postgresql_where=text("state = 'running'")),
        Index("ix_jobs_listing", "workspace_id", "kind", "id"),
        Index("ix_jobs_in_state", "workspace_id", "kind", "state", "id"),
        Index("ix_jobs_finished", "finished_at"),
        Index("ix_jobs_served", "workspace_id", "queue", "started_at", postgresql_where=text("started_at IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id))
    kind: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger, default=1)  # 0 before 1 before 2
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey(ModelRow.id), index=True)
    request: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    budget_seconds: Mapped[float] = mapped_column(Float)

    state: Mapped[str] = mapped_column(Text, default="queued")
    phase: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    eta_seconds: Mapped[float | None] = mapped_column(Float)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer)
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_holder: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Resident, of the largest process of the last attempt's runner; of one that did not live to say so, all that its
    # control group counted, where it had one.
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    version: Mapped[int] = mapped_column(BigInteger, default=0)
    # The span of the request that submitted it, where requests are traced: attempts at it belong to the same trace.
    traceparent: Mapped[str | None] = mapped_column(Text, default=current_traceparent)
    # The id of that request, which the log has of its attempts as well.
    request_id: Mapped[str | None] = mapped_column(Text, default=current_request_id)

    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


# A view: where queued jobs stand is all that row security lets a workspace know of others', for the place in the queue.
WAITING = table(
    "waiting_jobs",
    column("id", Uuid()),
    column("workspace_id", Uuid()),
    column("queue", Text()),
    column("priority", SmallInteger()),
)


class JobDatasetRow(Base):
    """The datasets of a job, by role: `calibration`, `training`, `evaluation`, or `subject` of an inspection."""

    __tablename__ = "job_datasets"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id), primary_key=True)
    role: Mapped[str] = mapped_column(Text, primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey(DatasetRow.id), index=True)


class JobModelRow(Base):
    """Models that a job's recipe names beside the job's own: a teacher, a student."""

    __tablename__ = "job_models"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey(ModelRow.id), primary_key=True, index=True)


class JobEventRow(Base):
    """One thing that happened to a job, in the order of `id`."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id))
    type: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class ReportRow(Base):
    """The report of a finished job; apart from the job's row, which is read far more often."""

    __tablename__ = "reports"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id), primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)


class MeasurementRow(Base):
    """One figure of one file, so that figures can be compared across jobs in SQL."""

    __tablename__ = "measurements"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id), primary_key=True)
    subject: Mapped[str] = mapped_column(Text, primary_key=True)  # `baseline`, a candidate, `step 1 <pass>`
    metric: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[float | None] = mapped_column(Float)
    low: Mapped[float | None] = mapped_column(Float)
    high: Mapped[float | None] = mapped_column(Float)


class JobCheckpointRow(Base):
    """What a pass that trains would go on from, should its worker be lost; gone with the end of the job."""

    __tablename__ = "job_checkpoints"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)  # of the recipe, from 0
    file_id: Mapped[UUID] = mapped_column(index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class SearchCacheRow(Base):
    """A piece of a search that a later one of the same model and data goes on from; see `search_cache`."""

    __tablename__ = "search_cache"

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id), primary_key=True)
    scope: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    subjects: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid()))
    file_id: Mapped[UUID] = mapped_column(index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    used_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class IdempotencyRow(Base):
    """A request that was accepted under a key: the same again answers the same job."""

    __tablename__ = "idempotency_keys"

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(WorkspaceRow.id), primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(JobRow.id, deferrable=True, initially="DEFERRED"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), index=True)
