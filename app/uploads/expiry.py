"""Uploads that nobody went on with."""

from sqlalchemy import delete, func, select

from app.database import Database
from app.storage import Storage
from app.uploads.tables import ResumableUploadRow, UploadPartRow, part_key

BATCH = 100


def delete_expired(database: Database, storage: Storage) -> int:
    """How many uploads were forgotten, and their bytes deleted. Any number may do so beside each other."""
    removed = 0
    while True:
        # Whoever appends to one holds its row, and has put its end off when he lets go.
        expired = (
            select(ResumableUploadRow.id)
            .where(ResumableUploadRow.expires_at <= func.now())
            .with_for_update(skip_locked=True)
            .limit(BATCH)
        )
        with database.session_scope() as session:
            ids = session.scalars(expired).all()
            let_go = delete(UploadPartRow).where(UploadPartRow.upload_id.in_(ids)).returning(UploadPartRow.file_id)
            files = session.scalars(let_go).all()
            session.execute(delete(ResumableUploadRow).where(ResumableUploadRow.id.in_(ids)))
        for file_id in files:
            storage.delete_sync(part_key(file_id))
        removed += len(ids)
        if len(ids) < BATCH:
            return removed
