"""Letting go of what is older than its workspace keeps it: rows here, bytes by the collector behind it.

Days are counted from when something was last wanted: a model or dataset from its last upload or the end of the last job
on it, what a job delivered from the job's end. What a queued or running job needs stays, and so does what was promoted.
Any number may run, beside uploads and submissions.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access.service import without_key
from app.access.tables import Action, WorkspaceRow
from app.artifacts.tables import ArtifactRow, PromotionRow
from app.blobs.tables import BlobRow, let_go, nothing_read
from app.blobs.upload_kinds import UploadKind
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
    return _let_go_of_uploads(database, MODELS, _cutoffs(database, WorkspaceRow.models_days, defaults.models_days))


def let_go_of_datasets(database: Database, defaults: RetentionSettings) -> int:
    """How many went."""
    return _let_go_of_uploads(
        database, DATASETS, _cutoffs(database, WorkspaceRow.datasets_days, defaults.datasets_days)
    )


def let_go_of_artifacts(database: Database, defaults: RetentionSettings) -> int:
    """How many went."""

    def remove(session: Session, ids: list[UUID]) -> None:
        session.execute(delete(ArtifactRow).where(ArtifactRow.id.in_(ids)))

    return sum(
        _in_batches(database, _old_artifacts(*cutoff), ArtifactRow, Action.ARTIFACT_DELETED, remove)
        for cutoff in _cutoffs(database, WorkspaceRow.artifacts_days, defaults.artifacts_days)
    )


def forget_inspections(database: Database) -> int:
    """Keep nothing of deleted models and datasets that inspection read in them; of how many something was kept.

    Whoever deletes one does so by `let_go`. An API of a release before it does not, and may go on for a while beside a
    database that is migrated.
    """
    return _forget_inspections(database, ModelRow) + _forget_inspections(database, DatasetRow)


def _forget_inspections(database: Database, table: type[UploadT]) -> int:
    kept = or_(table.inspection.is_not(None), table.problem.is_not(None))
    some = select(table.id).where(table.deleted_at.is_not(None), kept).limit(BATCH).with_for_update(skip_locked=True)
    forgotten = 0
    while True:
        with database.session_scope() as session:
            cleared = update(table).where(table.id.in_(some)).values(nothing_read()).returning(table.id)
            found = len(session.execute(cleared).all())
        forgotten += found
        if found < BATCH:
            return forgotten


def _cutoffs(
    database: Database, own_days: InstrumentedAttribute[int | None], default_days: int
) -> list[tuple[UUID, datetime]]:
    """The workspaces that keep things for a time, each with the moment before which it keeps none.

    Most keep everything, and nothing of theirs is looked through. For the others the moment is a constant, which an
    index can be asked by.
    """
    days = func.coalesce(own_days, default_days)
    moment = func.now() - func.make_interval(0, 0, 0, days)
    with database.session_scope() as session:
        found = session.execute(select(WorkspaceRow.id, moment.label("moment")).where(days > 0))
        return [(row.id, row.moment) for row in found]


def _old_artifacts(workspace_id: UUID, cutoff: datetime) -> Expired:
    return (
        select(ArtifactRow.id, ArtifactRow.workspace_id)
        .join(JobRow, JobRow.id == ArtifactRow.job_id)
        .where(
            JobRow.workspace_id == workspace_id,
            JobRow.state.in_(TERMINAL),
            JobRow.finished_at < cutoff,
            ~exists().where(PromotionRow.artifact_id == ArtifactRow.id),
        )
    )


def _let_go_of_uploads(database: Database, kind: UploadKind[UploadT], cutoffs: Iterable[tuple[UUID, datetime]]) -> int:
    table = kind.table

    def remove(session: Session, ids: list[UUID]) -> None:
        session.execute(update(table).where(table.id.in_(ids)).values(let_go()))

    return sum(_in_batches(database, _old_uploads(kind, *cutoff), table, kind.deleted, remove) for cutoff in cutoffs)


def _old_uploads(kind: UploadKind[UploadT], workspace_id: UUID, cutoff: datetime) -> Expired:
    table = kind.table
    running = JobRow.state.in_([JobState.QUEUED, JobState.RUNNING])
    unused = (
        ~jobs.where(or_(running, JobRow.finished_at > cutoff)).correlate(table).exists()
        for jobs in kind.jobs_of(table.__table__.c.id)
    )
    return select(table.id, table.workspace_id).where(
        table.workspace_id == workspace_id,
        table.deleted_at.is_(None),
        table.created_at < cutoff,
        ~exists().where(BlobRow.id == table.blob_id, BlobRow.touched_at > cutoff),
        *unused,
    )


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
