"""Removing bytes that nothing refers to, and files that no row knows.

A key is never used twice, so anybody may delete a file whose row is gone, at any time and more than once: any number of
collectors may run beside each other and beside uploads.
"""

import time
from datetime import timedelta
from itertools import islice
from uuid import UUID

import structlog
from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from app.artifacts.tables import ArtifactRow
from app.blobs.tables import BlobRow, storage_key
from app.database import Database
from app.datasets.tables import DatasetRow
from app.errors import LatheError
from app.jobs.checkpoints import PREFIX as CHECKPOINT_PREFIX
from app.jobs.checkpoints import checkpoint_key
from app.jobs.search_cache import PREFIX as PIECE_PREFIX
from app.jobs.search_cache import piece_key
from app.jobs.tables import JobCheckpointRow, SearchCacheRow
from app.models.tables import ModelRow
from app.storage import Storage, StoredFile
from app.uploads.tables import PREFIX as PART_PREFIX
from app.uploads.tables import UploadPartRow, part_key

BATCH = 500
PREFIX = "blobs"
PREFIXES = (PREFIX, CHECKPOINT_PREFIX, PIECE_PREFIX, PART_PREFIX)
log = structlog.get_logger()


class GarbageCollector:
    """Removes blobs without a reference, and files that have been seen without a row, unchanged, for as long as the
    grace.

    It keeps hands off an upload that is being written, and off one whose row is about to be. It is counted by a clock
    that nobody sets: by that of the wall, set ahead, each of these would be old.
    """

    def __init__(self, database: Database, storage: Storage, grace_seconds: float) -> None:
        self._database, self._storage, self._grace_seconds = database, storage, grace_seconds
        self._first_seen: dict[str, tuple[StoredFile, float]] = {}

    def collect(self) -> int:
        """One round: how many blobs and files were removed. What storage does not remove now waits for the next.

        Raises:
            Unavailable: storage does not even list what it has.

        """
        blobs = self._blobs()
        seen, files = dict[str, tuple[StoredFile, float]](), 0
        for prefix in PREFIXES:
            listed = self._storage.list_sync(prefix)
            while batch := list(islice(listed, BATCH)):
                files += self._files(batch, seen)
        self._first_seen = seen
        return blobs + files

    def _blobs(self) -> int:
        removed = 0
        while True:
            with self._database.session_scope() as session:
                gone = _take_unused(session, timedelta(seconds=self._grace_seconds))
            # The row first: a file without a row is garbage, a row without a file would be a broken promise.
            for workspace_id, blob_id in gone:
                discard(self._storage, storage_key(workspace_id, blob_id))
            removed += len(gone)
            if len(gone) < BATCH:
                return removed

    def _files(self, batch: list[StoredFile], seen: dict[str, tuple[StoredFile, float]]) -> int:
        known, now, removed = _known_keys(self._database, batch), time.monotonic(), 0
        for file in batch:
            if file.key in known:
                continue
            before, since = self._first_seen.get(file.key, (file, now))
            since = since if before == file else now
            if now - since >= self._grace_seconds and discard(self._storage, file.key):
                removed += 1
            else:
                seen[file.key] = file, since
        return removed


def discard(storage: Storage, key: str) -> bool:
    """Whether it is gone: what cannot be removed now is garbage, and keeps nobody from anything else."""
    try:
        storage.delete_sync(key)
    except LatheError as error:
        log.warning("garbage_left", key=key, error=error.detail)
        return False
    return True


def _take_unused(session: Session, grace: timedelta) -> list[tuple[UUID, UUID]]:
    """Workspace and id of some blobs that nothing refers to; their rows are deleted."""
    unused = (
        select(BlobRow.id)
        .where(
            BlobRow.touched_at <= func.now() - grace,
            *(~exists().where(table.blob_id == BlobRow.id) for table in (ModelRow, DatasetRow, ArtifactRow)),
        )
        # An upload that is about to refer to a blob holds its row, and has touched it when it lets go.
        .with_for_update(skip_locked=True)
        .limit(BATCH)
    )
    ids = session.execute(unused).scalars().all()
    gone = session.execute(delete(BlobRow).where(BlobRow.id.in_(ids)).returning(BlobRow.workspace_id, BlobRow.id))
    return [(row.workspace_id, row.id) for row in gone]


def _known_keys(database: Database, files: list[StoredFile]) -> set[str]:
    ids = {blob_id for file in files if (blob_id := _blob_id(file.key)) is not None}
    with database.session_scope() as session:
        rows = session.execute(select(BlobRow.workspace_id, BlobRow.id).where(BlobRow.id.in_(ids))).all()
        checkpoints = session.scalars(select(JobCheckpointRow.file_id).where(JobCheckpointRow.file_id.in_(ids)))
        kept = {checkpoint_key(file_id) for file_id in checkpoints}
        pieces = session.scalars(select(SearchCacheRow.file_id).where(SearchCacheRow.file_id.in_(ids)))
        kept |= {piece_key(file_id) for file_id in pieces}
        parts = session.scalars(select(UploadPartRow.file_id).where(UploadPartRow.file_id.in_(ids)))
        kept |= {part_key(file_id) for file_id in parts}
    return kept | {storage_key(workspace_id, blob_id) for workspace_id, blob_id in rows}


def _blob_id(key: str) -> UUID | None:
    """None for what an interrupted write left (`<id>#1`), and for anything else that was never a blob."""
    try:
        return UUID(key.rpartition("/")[2])
    except ValueError:
        return None
