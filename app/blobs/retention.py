"""Letting go of what is older than its workspace keeps it: rows here, bytes by the collector behind it.

Days are counted from when something was last wanted: a model or dataset from its last upload or the end of the last job
on it, what a job delivered from the job's end. What a queued or running job needs stays, and so does what was promoted.
Any number may run, beside uploads and submissions.
"""

from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, delete, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access.service import without_key
from app.access.tables import Action, WorkspaceRow
from app.artifacts.tables import ArtifactRow, PromotionRow
from app.blobs.tables import BlobRow
from app.blobs.uploads import UploadKind
from app.config import RetentionSettings
from app.database import Database
from app.datasets.service import DATASETS
from app.datasets.tables import DatasetRow
from app.jobs.states import TERMINAL, JobState
from app.jobs.tables import JobRow
from app.models.service import MODELS
from app.models.tables import ModelRow

BATCH = 500
NAMES = ("models_days", "datasets_days", "artifacts_days")
UploadT = TypeVar("UploadT", ModelRow, DatasetRow)
Expired = Select[UUID, UUID]
"""Ids of what is too old, each with that of its workspace."""


def let_go_of_models(database: Database, defaults: RetentionSettings) -> int:
    """How many went."""
    return _let_go_of_uploads(database, MODELS, _cutoff(WorkspaceRow.models_days, defaults.models_days))


def let_go_of_datasets(database: Database, defaults: RetentionSettings) -> int:
    """How many went."""
    return _let_go_of_uploads(database, DATASETS, _cutoff(WorkspaceRow.datasets_days, defaults.datasets_days))


def let_go_of_artifacts(database: Database, defaults: RetentionSettings) -> int:
    """How many went."""
    cutoff = _cutoff(WorkspaceRow.artifacts_days, defaults.artifacts_days)
    expired = (
        select(ArtifactRow.id, ArtifactRow.workspace_id)
        .join(WorkspaceRow, WorkspaceRow.id == ArtifactRow.workspace_id)
        .join(JobRow, JobRow.id == ArtifactRow.job_id)
        .where(
            JobRow.state.in_(TERMINAL),
            JobRow.finished_at < cutoff,
            ~exists().where(PromotionRow.artifact_id == ArtifactRow.id),
        )
    )

    def remove(session: Session, ids: list[UUID]) -> None:
        session.execute(delete(ArtifactRow).where(ArtifactRow.id.in_(ids)))

    return _in_batches(database, expired, ArtifactRow, Action.ARTIFACT_DELETED, remove)


def _cutoff(own_days: InstrumentedAttribute[int | None], default_days: int) -> ColumnElement[Any]:
    """The moment before which a workspace keeps nothing; null where it keeps everything."""
    days = func.coalesce(own_days, default_days)
    return case((days > 0, func.now() - func.make_interval(0, 0, 0, days)))


def _let_go_of_uploads(database: Database, kind: UploadKind[UploadT], cutoff: ColumnElement[Any]) -> int:
    table = kind.table
    running = JobRow.state.in_([JobState.QUEUED, JobState.RUNNING])
    unused = (
        ~jobs.where(or_(running, JobRow.finished_at > cutoff)).correlate(table, WorkspaceRow).exists()
        for jobs in kind.jobs_of(table.__table__.c.id)
    )
    expired = (
        select(table.id, table.workspace_id)
        .join(WorkspaceRow, WorkspaceRow.id == table.workspace_id)
        .where(
            table.deleted_at.is_(None),
            table.created_at < cutoff,
            ~exists().where(BlobRow.id == table.blob_id, BlobRow.touched_at > cutoff),
            *unused,
        )
    )

    def remove(session: Session, ids: list[UUID]) -> None:
        session.execute(update(table).where(table.id.in_(ids)).values(blob_id=None, deleted_at=func.now()))

    return _in_batches(database, expired, table, kind.deleted, remove)


def _in_batches(database: Database, expired: Expired, table: Any, action: Action, remove: Any) -> int:
    removed = 0
    while True:
        with database.session_scope() as session:
            # Whoever is about to use one holds its row. What is held here nobody begins to use, and whoever did just
            # before is seen by the second look.
            held = session.execute(expired.with_for_update(of=table, skip_locked=True).limit(BATCH)).all()
            rows = session.execute(expired.where(table.id.in_([row.id for row in held]))).all()
            remove(session, [row.id for row in rows])
            session.add_all(without_key(row.workspace_id, action, row.id, reason="expired") for row in rows)
        removed += len(rows)
        if len(held) < BATCH or not rows:
            return removed
