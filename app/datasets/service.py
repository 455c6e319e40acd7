"""Datasets, as a kind of upload."""

from uuid import UUID

from sqlalchemy import ColumnElement, Select, select

from app.access.tables import Action
from app.blobs.upload_kinds import OCTET_STREAM, UploadKind
from app.datasets.tables import DatasetRow
from app.jobs.states import JobKind
from app.jobs.tables import JobDatasetRow, JobRow


def _jobs_of(dataset_id: UUID | ColumnElement[UUID]) -> tuple[Select[UUID]]:
    named = select(JobRow.id).join(JobDatasetRow, JobDatasetRow.job_id == JobRow.id)
    return (named.where(JobDatasetRow.dataset_id == dataset_id),)


# The worker tells .npz from .safetensors by the bytes; the type is there for clients that name what they send.
DATASETS = UploadKind(
    noun="dataset",
    table=DatasetRow,
    media_types=(OCTET_STREAM, "application/x-npz", "application/zip", "application/x-safetensors"),
    inspection=JobKind.INSPECT_DATASET,
    created=Action.DATASET_CREATED,
    deleted=Action.DATASET_DELETED,
    jobs_of=_jobs_of,
)
