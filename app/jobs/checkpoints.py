"""Where a job's checkpoints are: one a step of its recipe, for as long as the job is not over."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.jobs.tables import JobCheckpointRow

PREFIX = "checkpoints"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A file in storage, under a key that is never used twice."""

    step: int
    file_id: UUID
    size_bytes: int
    sha256: bytes

    @property
    def key(self) -> str:
        return checkpoint_key(self.file_id)


def checkpoint_key(file_id: UUID) -> str:
    """Where a checkpoint's bytes lie in storage."""
    return f"{PREFIX}/{file_id}"


def remember(session: Session, job_id: UUID, stored: StoredCheckpoint) -> None:
    """Let it be the last of its step; the file of the one before is garbage then."""
    values = {"file_id": stored.file_id, "size_bytes": stored.size_bytes, "sha256": stored.sha256}
    statement = insert(JobCheckpointRow).values(job_id=job_id, step=stored.step, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["job_id", "step"], set_=values))


def checkpoints_of(session: Session, job_id: UUID) -> list[StoredCheckpoint]:
    """By step."""
    rows = session.scalars(
        select(JobCheckpointRow).where(JobCheckpointRow.job_id == job_id).order_by(JobCheckpointRow.step)
    )
    return [StoredCheckpoint(row.step, row.file_id, row.size_bytes, row.sha256) for row in rows]


def forget(session: Session, job_id: UUID) -> None:
    """The job is over: nothing goes on from them."""
    session.execute(delete(JobCheckpointRow).where(JobCheckpointRow.job_id == job_id))
