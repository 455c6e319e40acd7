"""Which bytes are stored: the same bytes once a workspace."""

from uuid import UUID

from sqlalchemy import Select, Update, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from app.blobs.tables import BlobRow


def stored_copy(workspace_id: UUID, sha256: bytes) -> Select[UUID]:
    """The blob that holds these bytes, where there is one."""
    return select(BlobRow.id).where(BlobRow.workspace_id == workspace_id, BlobRow.sha256 == sha256)


def keep(workspace_id: UUID, blob_id: UUID, sha256: bytes, size_bytes: int) -> ReturningInsert[UUID]:
    """The statement that keeps stored bytes, or finds those that were there already; it returns `id`.

    Where that is another id than `blob_id`, the bytes just stored are a second copy, to be deleted after the commit,
    or to take the place of a first one that is of no use (`replace`).
    Until the commit nobody else can keep or collect these bytes.
    """
    return (
        insert(BlobRow)
        .values(id=blob_id, workspace_id=workspace_id, sha256=sha256, size_bytes=size_bytes)
        .on_conflict_do_update(index_elements=["workspace_id", "sha256"], set_={"touched_at": func.now()})
        .returning(BlobRow.id)
    )


def replace(spoilt: UUID, blob_id: UUID) -> Update:
    """The statement that lets the bytes just stored as `blob_id` stand for those of `spoilt`, for all that refer to it.

    What storage still has of `spoilt` is then a file without a row, and collected as such.
    """
    values = {"id": blob_id, "created_at": func.now(), "touched_at": func.now()}
    return update(BlobRow).where(BlobRow.id == spoilt).values(values)
