"""What an inspection job makes of its subject: a model or a dataset becomes `ready` or `rejected` with the job."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.errors import Fault
from app.jobs.states import JobKind
from app.jobs.tables import JobDatasetRow, JobRow
from app.models.tables import ModelRow

SUBJECT = "subject"


def accept(session: Session, job_id: UUID, kind: JobKind, inspection: dict[str, Any]) -> None:
    _settle(session, job_id, kind, {"status": "ready", "inspection": inspection, "problem": None})


def reject(session: Session, job_id: UUID, kind: JobKind, fault: Fault) -> None:
    """Nothing happens to the model of an optimization that failed: it stays as it was inspected."""
    _settle(session, job_id, kind, {"status": "rejected", "inspection": None, "problem": fault.model_dump()})


def _settle(session: Session, job_id: UUID, kind: JobKind, values: dict[str, Any]) -> None:
    if kind is JobKind.INSPECT_MODEL:
        model_id = select(JobRow.model_id).where(JobRow.id == job_id).scalar_subquery()
        session.execute(update(ModelRow).where(ModelRow.id == model_id).values(values))
    elif kind is JobKind.INSPECT_DATASET:
        dataset_id = (
            select(JobDatasetRow.dataset_id)
            .where(JobDatasetRow.job_id == job_id, JobDatasetRow.role == SUBJECT)
            .scalar_subquery()
        )
        session.execute(update(DatasetRow).where(DatasetRow.id == dataset_id).values(values))
