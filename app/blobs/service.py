"""Which bytes are stored: the same bytes once a workspace."""

from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from app.blobs.tables import BlobRow


def keep(workspace_id: UUID, blob_id: UUID, sha256: bytes, size_bytes: int) -> ReturningInsert[UUID]:
    """The statement that keeps stored bytes, or finds those that were there already; it returns `id`.

    Where that is another id than `blob_id`, the bytes just stored are a second copy, to be deleted after the commit.
    Until the commit nobody else can keep or collect these bytes.
    """
    return (
        insert(BlobRow)
        .values(id=blob_id, workspace_id=workspace_id, sha256=sha256, size_bytes=size_bytes)
        .on_conflict_do_update(index_elements=["workspace_id", "sha256"], set_={"touched_at": func.now()})
        .returning(BlobRow.id)
    )
