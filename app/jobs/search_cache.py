"""Pieces of searches that a later one can go on from: of one workspace, and of the same model and data.

What a piece is for, its key says, which the runner makes: here it is a file with a hash.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, any_, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.jobs.lease import Claim
from app.jobs.tables import JobDatasetRow, JobModelRow, SearchCacheRow
from app.models.tables import ModelRow

PREFIX = "search-cache"


@dataclass(frozen=True)
class Scope:
    """Whose pieces: those of searches in this workspace that were given the same bytes."""

    workspace_id: UUID
    digest: bytes
    """Over the hashes of the model, of the datasets by role, and of the other models that the request names."""
    subjects: list[UUID]
    """These models and datasets; with one of them the pieces go."""


@dataclass(frozen=True)
class StoredPiece:
    """A file in storage, under a key of storage's that is never used twice."""

    key: bytes
    file_id: UUID
    size_bytes: int
    sha256: bytes

    @property
    def storage_key(self) -> str:
        return piece_key(self.file_id)


def piece_key(file_id: UUID) -> str:
    """Where a piece's bytes lie in storage."""
    return f"{PREFIX}/{file_id}"


def scope_of(session: Session, claim: Claim) -> Scope:
    """Of the search that a job is."""
    own = select(ModelRow.id, ModelRow.sha256).where(ModelRow.id == claim.model_id)
    others = (
        select(ModelRow.id, ModelRow.sha256)
        .join(JobModelRow, JobModelRow.model_id == ModelRow.id)
        .where(JobModelRow.job_id == claim.job_id)
    )
    datasets = (
        select(JobDatasetRow.role, DatasetRow.id, DatasetRow.sha256)
        .join(JobDatasetRow, JobDatasetRow.dataset_id == DatasetRow.id)
        .where(JobDatasetRow.job_id == claim.job_id)
    )
    found = [session.execute(statement).all() for statement in (own, others, datasets)]
    facts = [sorted([*map(str, row[:-2]), row.sha256.hex()] for row in rows) for rows in found]
    subjects = {row.id for rows in found for row in rows}
    return Scope(claim.workspace_id, hashlib.sha256(json.dumps(facts).encode()).digest(), sorted(subjects))


def remember(session: Session, scope: Scope, stored: StoredPiece) -> None:
    """Let its file be what the key stands for; that of one before is garbage then."""
    values = {"file_id": stored.file_id, "size_bytes": stored.size_bytes, "sha256": stored.sha256}
    inserting = insert(SearchCacheRow).values(
        workspace_id=scope.workspace_id, scope=scope.digest, key=stored.key, subjects=scope.subjects, **values
    )
    # A runner leaves one again only where it could not use the one that it was given.
    replacing = {**values, "subjects": scope.subjects, "created_at": func.now(), "used_at": func.now()}
    session.execute(inserting.on_conflict_do_update(index_elements=["workspace_id", "scope", "key"], set_=replacing))


def pieces_of(session: Session, scope: Scope, most: int, most_bytes: int) -> list[StoredPiece]:
    """The newest first, no more of them and of their bytes; they count as used."""
    statement = select(SearchCacheRow).where(_within(scope)).order_by(SearchCacheRow.created_at.desc()).limit(most)
    chosen: list[StoredPiece] = []
    for row in session.scalars(statement):
        if row.size_bytes <= most_bytes:
            most_bytes -= row.size_bytes
            chosen.append(StoredPiece(row.key, row.file_id, row.size_bytes, row.sha256))
    files = [one.file_id for one in chosen]
    session.execute(update(SearchCacheRow).where(SearchCacheRow.file_id.in_(files)).values(used_at=func.now()))
    return chosen


def forget(session: Session, stored: StoredPiece) -> None:
    """Its file is lost or damaged: the next search makes it anew."""
    session.execute(delete(SearchCacheRow).where(SearchCacheRow.file_id == stored.file_id))


def forget_old(session: Session, unused_seconds: float, most_bytes: int) -> int:
    """Let go of what was not used for so long, of a workspace's least used beyond so many bytes, and of what was made
    of a model or dataset that is deleted. How many; the collector removes their files.
    """
    bytes_so_far = func.sum(SearchCacheRow.size_bytes).over(
        partition_by=SearchCacheRow.workspace_id,
        order_by=(SearchCacheRow.used_at.desc(), SearchCacheRow.file_id.desc()),
    )
    sums = select(SearchCacheRow.file_id, bytes_so_far.label("so_far")).subquery()
    unwanted = or_(
        SearchCacheRow.used_at <= func.now() - timedelta(seconds=unused_seconds),
        SearchCacheRow.file_id.in_(select(sums.c.file_id).where(sums.c.so_far > most_bytes)),
        *(
            exists().where(table.id == any_(SearchCacheRow.subjects), table.deleted_at.is_not(None))
            for table in (ModelRow, DatasetRow)
        ),
    )
    gone = session.execute(delete(SearchCacheRow).where(unwanted).returning(SearchCacheRow.file_id))
    return len(gone.all())


def _within(scope: Scope) -> ColumnElement[bool]:
    return (SearchCacheRow.workspace_id == scope.workspace_id) & (SearchCacheRow.scope == scope.digest)
