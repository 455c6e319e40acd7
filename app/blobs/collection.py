"""Removing bytes that nothing refers to, and files that no row knows.

A key is never used twice, so anybody may delete a file whose row is gone, at any time and more than once: any number of
collectors may run beside each other and beside uploads.
"""

from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

from sqlalchemy import delete, exists, func, select

from app.artifacts.tables import ArtifactRow
from app.blobs.tables import BlobRow, storage_key
from app.database import Database
from app.datasets.tables import DatasetRow
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


def collect_garbage(database: Database, storage: Storage, grace_seconds: float) -> int:
    """How many files were removed: those of blobs without a reference, and those without a row, older than the grace.

    The grace keeps hands off an upload whose row is about to be written.
    """
    grace = timedelta(seconds=grace_seconds)
    files = sum(_collect_files(database, storage, grace, prefix) for prefix in PREFIXES)
    return _collect_blobs(database, storage, grace) + files


def _collect_blobs(database: Database, storage: Storage, grace: timedelta) -> int:
    removed = 0
    while True:
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
        with database.session_scope() as session:
            ids = session.execute(unused).scalars().all()
            gone = session.execute(
                delete(BlobRow).where(BlobRow.id.in_(ids)).returning(BlobRow.workspace_id, BlobRow.id)
            ).all()
        # The row first: a file without a row is garbage, a row without a file would be a broken promise.
        for workspace_id, blob_id in gone:
            storage.delete_sync(storage_key(workspace_id, blob_id))
        removed += len(gone)
        if len(gone) < BATCH:
            return removed


def _collect_files(database: Database, storage: Storage, grace: timedelta, prefix: str) -> int:
    removed = 0
    oldest = datetime.now(UTC) - grace
    files = (file for file in storage.list_sync(prefix) if file.modified_at <= oldest)
    while batch := list(islice(files, BATCH)):
        known = _known_keys(database, batch)
        for file in batch:
            if file.key not in known:
                storage.delete_sync(file.key)
                removed += 1
    return removed


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
