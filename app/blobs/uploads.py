"""What models and datasets have in common: uploaded, inspected by a job, listed, deleted when nothing uses them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal
from uuid import UUID

from anyio import to_thread
from fastapi import Query, Request
from sqlalchemy import ColumnElement, CompoundSelect, Select, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.access import audit
from app.access.service import Caller
from app.blobs import collection, quota
from app.blobs.open_uploads import OpenUploads
from app.blobs.receiving import Received, content_length, receive, too_large
from app.blobs.service import keep, replace, stored_copy
from app.blobs.tables import BlobRow, let_go, storage_key
from app.blobs.upload_kinds import OCTET_STREAM, Row, UploadKind
from app.config import Settings
from app.database import WorkspaceDatabase
from app.datasets.tables import DatasetRow
from app.errors import OUR_FAULTS, InUse, LatheError, NotFound, OurFault, UnsupportedMediaType
from app.jobs.quota import refuse_excess_inspections
from app.jobs.states import JobState
from app.jobs.submission import queue_inspection
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.paging import short_page_of
from app.storage import Storage

Status = Literal["inspecting", "ready", "rejected"]

MAX_NAME_CHARACTERS = 255
NAME_PATTERN = r"^[^\x00-\x1f\x7f]+$"
UploadName = Annotated[
    str,
    Query(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        pattern=NAME_PATTERN,
        description="A name for people; it need not be unique, and the same bytes keep the name they came with first.",
    ),
]
StatusFilter = Annotated[Status | None, Query(description="Only those with this status.")]
NameFilter = Annotated[
    str | None,
    Query(max_length=255, pattern=r"^[^\x00]*$", description="Only those with exactly this name."),
]

SPOILT = (OurFault.CONTENT_CORRUPT, OurFault.CONTENT_MISSING)
"""What jobs fail with that could not read the stored copy."""


@dataclass(frozen=True)
class Arrival:
    """Bytes in storage, and what their sender said of them."""

    received: Received
    name: str
    media_type: str


@dataclass(frozen=True)
class Accepted(Generic[Row]):
    """An upload that is committed."""

    row: Row
    created: bool
    job: JobRow | None
    """The inspection that was queued, if there was one to queue."""


async def upload(
    kind: UploadKind[Row],
    request: Request,
    *,
    caller: Caller,
    name: str,
    database: WorkspaceDatabase,
    storage: Storage,
    settings: Settings,
    open_uploads: OpenUploads,
) -> Accepted[Row]:
    """Store the body and queue its inspection. The same bytes again are the same upload, and repair its stored copy.

    Raises UnsupportedMediaType, TooLarge, StorageQuotaExceeded, TooManyUploads, TooManyQueuedInspections, and what
    `receive` raises.
    """
    # Without a Content-Type it is a stream of octets (RFC 9110, 8.3).
    media_type = media_type_of(kind, request.headers.get("content-type", OCTET_STREAM))
    announced = content_length(request)
    # Before the database hears of it, whose numbers end where those of HTTP do not.
    if announced is not None and announced > settings.api.max_upload_bytes:
        raise too_large(settings.api.max_upload_bytes)
    async with database.reading_scope() as session:
        await quota.refuse_hopeless(session, caller.workspace_id, announced, settings.limits)
        known = announced is not None
        room = None if known else await quota.room_for_unknown(session, caller.workspace_id, settings.limits)
    open_uploads.refuse_excess(caller.workspace_id)
    with open_uploads.counted(caller.workspace_id):
        received = await receive(request, storage, caller.workspace_id, settings.api, room)
    arrival = Arrival(received, name, media_type)
    return await accept(kind, arrival, caller=caller, database=database, storage=storage, settings=settings)


async def accept(
    kind: UploadKind[Row],
    arrival: Arrival,
    *,
    caller: Caller,
    database: WorkspaceDatabase,
    storage: Storage,
    settings: Settings,
    along: Callable[[AsyncSession, UUID], Awaitable[None]] | None = None,
) -> Accepted[Row]:
    """Let stored bytes be an upload, and queue its inspection.

    `along` is done in the same transaction, and is told the upload's id; where it refuses, nothing has happened.
    Raises StorageQuotaExceeded, TooManyQueuedInspections, and what `along` raises.
    """
    received = arrival.received
    lost = await _lost_copy(database, storage, received)
    # Where this fails, the commit may have happened all the same: the bytes stay, and are left to the collector.
    try:
        async with database.session_scope() as session:
            blob_id = await _keep(session, kind, received, lost)
            accepted = await _accept(session, kind, arrival, blob_id, settings)
            if along is not None:
                await along(session, accepted.row.id)
            if accepted.job is not None:
                await refuse_excess_inspections(session, caller.workspace_id, settings.limits)
            if accepted.created:
                audit.record(session, caller, kind.created, accepted.row.id, name=arrival.name)
                await quota.refuse_excess(session, caller.workspace_id, settings.limits)
    except LatheError:  # raised before the commit: a refusal
        await discard(storage, received.storage_key)
        raise
    if blob_id != received.blob_id:
        await discard(storage, received.storage_key)
    return accepted


async def find(session: AsyncSession, kind: UploadKind[Row], workspace_id: UUID, row_id: UUID) -> Row:
    """Raises NotFound."""
    row = (await session.execute(_live(kind, workspace_id).where(kind.table.id == row_id))).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no {kind.noun} {row_id}.")
    return row


def blob_of(row: ModelRow | DatasetRow) -> UUID:
    """Where the bytes of a live upload lie. Raises NotFound for one that was deleted."""
    if row.blob_id is None:
        raise NotFound(f"{row.name} was deleted.")
    return row.blob_id


async def list_page(
    session: AsyncSession,
    kind: UploadKind[Row],
    workspace_id: UUID,
    *,
    limit: int,
    cursor: str | None,
    status: Status | None,
    name: str | None,
) -> tuple[list[Row], str | None]:
    """One page, newest first, and the cursor of the next."""
    statement = _live(kind, workspace_id)
    if status is not None:
        statement = statement.where(kind.table.status == status)
    if name is not None:
        statement = statement.where(kind.table.name == name)
    large = kind.table.inspection, kind.table.problem
    page, next_cursor = await short_page_of(session, statement, kind.table.id, limit, cursor, *large)
    return list((await session.execute(page)).scalars()), next_cursor


async def delete(session: AsyncSession, kind: UploadKind[Row], caller: Caller, row_id: UUID) -> None:
    """Let go of the bytes and what was read in them; the row stays for the finished jobs that refer to it.

    Raises NotFound, InUse.
    """
    # The lock keeps a job from being submitted on it meanwhile: submission locks the row for its key.
    locked = _live(kind, caller.workspace_id).where(kind.table.id == row_id).with_for_update()
    if (await session.execute(locked)).scalar_one_or_none() is None:
        raise NotFound(f"There is no {kind.noun} {row_id}.")
    running = JobRow.state.in_([JobState.QUEUED, JobState.RUNNING])
    user = (await session.execute(_one_job(kind, row_id, running))).scalar_one_or_none()
    if user is not None:
        raise InUse(
            f"Job {user} uses the {kind.noun} {row_id}.",
            remedy=f"Wait for it to end, or cancel it: POST /v1/jobs/{user}/cancel.",
        )
    await session.execute(update(kind.table).where(kind.table.id == row_id).values(let_go()))
    audit.record(session, caller, kind.deleted, row_id)


async def discard(storage: Storage, key: str) -> None:
    """Remove bytes that no row names; those that storage does not let go of now are left to the collector."""
    await to_thread.run_sync(collection.discard, storage, key)


async def _lost_copy(database: WorkspaceDatabase, storage: Storage, received: Received) -> UUID | None:
    """The blob that should hold these bytes and does not. Keys are never used twice: one that is lost remains so."""
    async with database.reading_scope() as session:
        known = (await session.execute(stored_copy(received.workspace_id, received.sha256))).scalar_one_or_none()
    if known is None or await storage.holds(storage_key(received.workspace_id, known), received.size_bytes):
        return None
    return known


async def _keep(session: AsyncSession, kind: UploadKind[Row], received: Received, lost: UUID | None) -> UUID:
    """Where the bytes lie from now on: where they lay before, unless that copy is lost or a job could not read it."""
    keeping = keep(received.workspace_id, received.blob_id, received.sha256, received.size_bytes)
    kept = (await session.execute(keeping)).scalar_one()
    if kept == received.blob_id:
        return kept
    if kept != lost and (await session.execute(_failed_reader(kind, kept))).first() is None:
        return kept
    await session.execute(replace(kept, received.blob_id))
    return received.blob_id


def _failed_reader(kind: UploadKind[Row], blob_id: UUID) -> CompoundSelect[UUID]:
    """A job that could not read these bytes since they were stored."""
    row_id = select(kind.table.id).where(kind.table.blob_id == blob_id).scalar_subquery()
    stored_at = select(BlobRow.created_at).where(BlobRow.id == blob_id).scalar_subquery()
    return _one_job(kind, row_id, JobRow.error["code"].astext.in_(SPOILT), JobRow.finished_at > stored_at)


def _one_job(
    kind: UploadKind[Row], row_id: UUID | ColumnElement[UUID], *conditions: ColumnElement[bool]
) -> CompoundSelect[UUID]:
    """One of the jobs that refer to an upload and fulfil the conditions."""
    return union_all(*(jobs.where(*conditions) for jobs in kind.jobs_of(row_id))).limit(1)


async def _accept(
    session: AsyncSession, kind: UploadKind[Row], arrival: Arrival, blob_id: UUID, settings: Settings
) -> Accepted[Row]:
    """The row of that blob, new or found; `keep` holds back everybody else who brings the same bytes."""
    received = arrival.received
    found = _live(kind, received.workspace_id).where(kind.table.blob_id == blob_id).with_for_update()
    row = (await session.execute(found)).scalar_one_or_none()
    created = row is None
    if row is None:
        row = kind.table(
            id=uuid7(),
            workspace_id=received.workspace_id,
            blob_id=blob_id,
            name=arrival.name,
            media_type=arrival.media_type,
            sha256=received.sha256,
            size_bytes=received.size_bytes,
            status="inspecting",
        )
        session.add(row)
    elif _deserves_another_look(row, arrival.media_type):
        row.status, row.problem, row.inspection, row.media_type = "inspecting", None, None, arrival.media_type
    else:
        return Accepted(row, created=False, job=None)
    await session.flush()
    await session.refresh(row)
    subject: dict[str, Any] = {f"{kind.noun}_id": row.id}
    job = await queue_inspection(
        session, kind=kind.inspection, workspace_id=received.workspace_id, settings=settings, **subject
    )
    return Accepted(row, created=created, job=job)


def _deserves_another_look(row: ModelRow | DatasetRow, media_type: str) -> bool:
    """Rejected through no fault of the file's, or sent under another type before (a tar as a bare model)."""
    if row.status != "rejected":
        return False
    return row.media_type != media_type or (row.problem or {}).get("code") in OUR_FAULTS


def _live(kind: UploadKind[Row], workspace_id: UUID) -> Select[Row]:
    return select(kind.table).where(kind.table.workspace_id == workspace_id, kind.table.deleted_at.is_(None))


def media_type_of(kind: UploadKind[Row], said: str) -> str:
    """The type of a Content-Type. Raises UnsupportedMediaType where such a thing is not sent as that."""
    media_type = said.partition(";")[0].strip().lower()
    if media_type not in kind.media_types:
        accepted = ", ".join(f"`{name}`" for name in kind.media_types)
        raise UnsupportedMediaType(
            f"A {kind.noun} cannot be sent as `{media_type[:100]}`.",
            remedy=f"Send the file itself as the body, with one of these as Content-Type: {accepted}.",
        )
    return media_type
