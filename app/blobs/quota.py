"""How many bytes a workspace may store, parts of resumable uploads among them, and how many of those may be unfinished.

Files that jobs deliver count, and are never refused: their work is done. So where no room is left no job is accepted.
"""

from collections.abc import AsyncIterator
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.access.limits import limits_of
from app.blobs.tables import BlobRow
from app.config import LimitSettings
from app.errors import StorageQuotaExceeded, TooManyResumableUploads
from app.uploads.tables import ResumableUploadRow, UploadPartRow

# What a file takes of a disk at least: else a million files of one byte would be a megabyte.
LEAST_FILE_BYTES = 4096
RETRY_SECONDS = 15
MAKE_ROOM = (
    "Delete models, datasets and delivered files that are not needed any more (`lathe delete ID`); their bytes are let "
    "go within the hour. `lathe workspaces limit` allows more."
)


async def refuse_hopeless(
    session: AsyncSession, workspace_id: UUID, size_bytes: int | None, defaults: LimitSettings
) -> None:
    """Before bytes arrive: refuse what is announced to be more than there is room for.

    Unless something of that size is stored: the same bytes again need no room. Raises StorageQuotaExceeded.
    """
    most = (await limits_of(session, workspace_id, defaults)).stored_bytes
    if not most or not size_bytes:
        return
    if await _stored(session, workspace_id) + max(size_bytes, LEAST_FILE_BYTES) <= most:
        return
    alike = exists().where(BlobRow.workspace_id == workspace_id, BlobRow.size_bytes == size_bytes)
    if not (await session.execute(select(alike))).scalar_one():
        raise _exceeded(most)


async def room_for_unknown(session: AsyncSession, workspace_id: UUID, defaults: LimitSettings) -> int | None:
    """How many bytes an upload may bring that does not say how many it has; None: any number.

    As many as are stored under one key already: the same bytes again need no room.
    """
    most = (await limits_of(session, workspace_id, defaults)).stored_bytes
    if not most:
        return None
    largest = select(func.coalesce(func.max(BlobRow.size_bytes), 0)).where(BlobRow.workspace_id == workspace_id)
    left = most - await _stored(session, workspace_id)
    return max(left, int((await session.execute(largest)).scalar_one()))


async def within(pieces: AsyncIterator[bytes], room: int | None) -> AsyncIterator[bytes]:
    """The pieces, as long as there is room for them. Raises StorageQuotaExceeded."""
    arrived_bytes = 0
    async for piece in pieces:
        arrived_bytes += len(piece)
        if room is not None and arrived_bytes > room:
            raise StorageQuotaExceeded(
                f"{arrived_bytes} bytes arrived, and this workspace has no room for more.", remedy=MAKE_ROOM
            )
        yield piece


async def refuse_excess(session: AsyncSession, workspace_id: UUID, defaults: LimitSettings) -> None:
    """Last in the transaction that keeps new bytes. Raises StorageQuotaExceeded."""
    if not (await limits_of(session, workspace_id, defaults)).stored_bytes:
        return
    most = (await limits_of(session, workspace_id, defaults, hold=True)).stored_bytes
    if await _stored(session, workspace_id) > most:
        raise _exceeded(most)


async def refuse_without_room(session: AsyncSession, workspace_id: UUID, defaults: LimitSettings) -> None:
    """Before a job is queued, which delivers a file at least. Raises StorageQuotaExceeded."""
    most = (await limits_of(session, workspace_id, defaults)).stored_bytes
    if most and await _stored(session, workspace_id) >= most:
        raise StorageQuotaExceeded(
            f"This workspace may store {most} bytes and stores as many: there is no room for what a job delivers.",
            remedy=MAKE_ROOM,
        )


async def refuse_another_resumable(session: AsyncSession, workspace_id: UUID, defaults: LimitSettings) -> None:
    """Before a resumable upload is begun. Raises TooManyResumableUploads."""
    most = defaults.resumable_uploads
    if not most:
        return
    await limits_of(session, workspace_id, defaults, hold=True)
    unfinished = select(func.count()).where(
        ResumableUploadRow.workspace_id == workspace_id, ResumableUploadRow.accepted_id.is_(None)
    )
    if (await session.execute(unfinished)).scalar_one() >= most:
        raise TooManyResumableUploads(
            f"{most} resumable uploads of this workspace are unfinished, and no more may be.",
            remedy="Finish or delete some: DELETE /v1/uploads/<id>. LATHE_LIMITS_RESUMABLE_UPLOADS sets the most.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )


async def _stored(session: AsyncSession, workspace_id: UUID) -> int:
    kept = select(_taken(BlobRow.size_bytes)).where(BlobRow.workspace_id == workspace_id)
    arriving = (
        select(_taken(UploadPartRow.size_bytes))
        .join(ResumableUploadRow, ResumableUploadRow.id == UploadPartRow.upload_id)
        .where(ResumableUploadRow.workspace_id == workspace_id)
    )
    return int((await session.execute(select(kept.scalar_subquery() + arriving.scalar_subquery()))).scalar_one())


def _taken(size_bytes: InstrumentedAttribute[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(func.greatest(size_bytes, LEAST_FILE_BYTES)), 0)


def _exceeded(most: int) -> StorageQuotaExceeded:
    return StorageQuotaExceeded(
        f"This workspace may store {most} bytes, and the upload would be more.", remedy=MAKE_ROOM
    )
