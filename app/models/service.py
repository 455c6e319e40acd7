"""Models, as a kind of upload."""

from uuid import UUID

from sqlalchemy import ColumnElement, Select, select

from app.access.tables import Action
from app.blobs.upload_kinds import OCTET_STREAM, UploadKind
from app.jobs.states import JobKind
from app.jobs.tables import JobModelRow, JobRow
from app.models.tables import ModelRow

TAR = "application/x-tar"


def _jobs_of(model_id: UUID | ColumnElement[UUID]) -> tuple[Select[UUID], Select[UUID]]:
    named = select(JobRow.id).join(JobModelRow, JobModelRow.job_id == JobRow.id).where(JobModelRow.model_id == model_id)
    return select(JobRow.id).where(JobRow.model_id == model_id), named


MODELS = UploadKind(
    noun="model",
    table=ModelRow,
    media_types=(OCTET_STREAM, TAR),
    inspection=JobKind.INSPECT_MODEL,
    created=Action.MODEL_CREATED,
    deleted=Action.MODEL_DELETED,
    jobs_of=_jobs_of,
)
