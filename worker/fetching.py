"""Brings a job's files from storage into the runner's folder, and writes `job.json`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select

from app.blobs.tables import storage_key
from app.config import Settings
from app.database import Database
from app.datasets.tables import DatasetRow
from app.errors import OurFault, StorageFull
from app.jobs.lease import Claim
from app.jobs.states import JobKind
from app.jobs.subjects import SUBJECT
from app.jobs.tables import JobDatasetRow, JobModelRow
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest
from app.storage import ContentMissing, Storage
from worker.bringing import fetch_verified
from worker.checkpoints import bring_checkpoints
from worker.cores import threads_for_models
from worker.failures import UnreadableRequest
from worker.memory import affordable_bytes
from worker.runner.contract import (
    BEST_FOLDER,
    CHECKPOINT_FOLDER,
    JOB_FILE,
    OUTPUT_FOLDER,
    PIECE_FOLDER,
    InputFile,
    RunnerJob,
)
from worker.search_cache import bring_pieces

Upload = ModelRow | DatasetRow


class UnreadableInput(Exception):
    """Storage does not give back what was uploaded."""

    code: ClassVar[OurFault]


class CorruptInput(UnreadableInput):
    code = OurFault.CONTENT_CORRUPT


class MissingInput(UnreadableInput):
    code = OurFault.CONTENT_MISSING


class WorkFolderTooSmall(Exception):
    """Even empty, the disk could not hold the job's files."""


@dataclass(frozen=True)
class Needed:
    """What a job names: its model, the other models of its request, and its datasets by role."""

    model: ModelRow | None
    others: list[ModelRow]
    datasets: dict[str, DatasetRow]

    @property
    def uploads(self) -> dict[UUID, Upload]:
        """Each once, by id."""
        rows: list[Upload] = [*([self.model] if self.model else []), *self.others, *self.datasets.values()]
        return {row.id: row for row in rows}


def fetch(
    database: Database,
    storage: Storage,
    settings: Settings,
    claim: Claim,
    folder: Path,
    going_on: Callable[[], None] = lambda: None,
) -> RunnerJob:
    """Everything the runner needs, in `folder`. `going_on` is asked again and again while files are copied.

    Raises UnreadableRequest before anything is copied; CorruptInput and MissingInput, WorkFolderTooSmall, StorageFull
    where there is no room now for them or for what the runner makes, and whatever `going_on` raises.
    """
    request = _read_request(claim)
    needed = _needed(database, claim)
    uploads, model = needed.uploads, needed.model
    ensure_work_room(folder, sum(upload.size_bytes for upload in uploads.values()))
    if claim.kind is JobKind.OPTIMIZE and model:
        # Known before minutes are spent on it: a result is about as large as its model, or smaller.
        storage.ensure_room(model.size_bytes)
    for name in (OUTPUT_FOLDER, CHECKPOINT_FOLDER, BEST_FOLDER, PIECE_FOLDER, "inputs"):
        (folder / name).mkdir(mode=0o700)
    files = {key: _fetch_one(storage, upload, folder, going_on) for key, upload in uploads.items()}
    job = RunnerJob(
        kind=claim.kind,
        model=files[model.id] if model else None,
        others={str(row.id): files[row.id] for row in needed.others},
        datasets={role: files[row.id] for role, row in needed.datasets.items()},
        request=request,
        threads=threads_for_models(settings),
        timing_rounds=settings.runner.timing_rounds,
        round_seconds=settings.runner.round_seconds,
        budget_seconds=claim.budget_seconds,
        memory_bytes=affordable_bytes(settings.runner.memory_bytes),
        # What an attempt cannot do without lies there by now: of the room that is left, they fill a part.
        checkpoints=bring_checkpoints(database, storage, claim, folder, going_on),
        pieces=bring_pieces(database, storage, claim, folder, going_on),
        piece_bytes=settings.jobs.search_cache_bytes,
    )
    (folder / JOB_FILE).write_text(job.model_dump_json(by_alias=True))
    return job


def _read_request(claim: Claim) -> OptimizeRequest | None:
    """What was asked for, with every default that held then; an inspection has none. Raises UnreadableRequest."""
    if not claim.request:
        return None
    try:
        return OptimizeRequest.model_validate(claim.request)
    except ValidationError as error:
        places = sorted({".".join(map(str, entry["loc"])) for entry in error.errors(include_input=False)})
        raise UnreadableRequest(f"this worker cannot read {', '.join(filter(None, places)) or 'it'}") from error


def _needed(database: Database, claim: Claim) -> Needed:
    with database.session_scope() as session:
        datasets = session.execute(
            select(JobDatasetRow.role, DatasetRow)
            .join(DatasetRow, DatasetRow.id == JobDatasetRow.dataset_id)
            .where(JobDatasetRow.job_id == claim.job_id)
        )
        others = session.scalars(
            select(ModelRow)
            .join(JobModelRow, JobModelRow.model_id == ModelRow.id)
            .where(JobModelRow.job_id == claim.job_id)
        )
        return Needed(
            model=session.get(ModelRow, claim.model_id) if claim.model_id else None,
            others=list(others),
            datasets={"dataset" if role == SUBJECT else role: row for role, row in datasets},
        )


def ensure_work_room(folder: Path, size_bytes: int) -> None:
    """Before so many bytes are copied there. Raises WorkFolderTooSmall, and StorageFull."""
    disk = os.statvfs(folder)
    if size_bytes > disk.f_blocks * disk.f_frsize:
        raise WorkFolderTooSmall(f"{size_bytes} bytes of input, and {disk.f_blocks * disk.f_frsize} of disk")
    if size_bytes > disk.f_bavail * disk.f_frsize:
        raise StorageFull("There is no room left in the work folder.", remedy="Free some space on the worker's disk.")


def _fetch_one(storage: Storage, upload: Upload, folder: Path, going_on: Callable[[], None]) -> InputFile:
    if upload.blob_id is None:
        raise MissingInput(f"{upload.name} was deleted")
    path = folder / "inputs" / str(upload.id)
    try:
        intact = fetch_verified(
            storage, storage_key(upload.workspace_id, upload.blob_id), path, upload.sha256, going_on
        )
    except ContentMissing as error:
        raise MissingInput(f"the stored bytes of {upload.name} are gone") from error
    if not intact:
        raise CorruptInput(f"{upload.name} came back from storage with another hash")
    return InputFile(
        path=str(path.relative_to(folder)),
        media_type=upload.media_type,
        sha256=upload.sha256.hex(),
        size_bytes=upload.size_bytes,
        name=upload.name,
    )
