"""Uploads that go on where they broke off.

What has arrived lies in parts, each a file and a row, so that any process of the API can go on. A part counts once its
row is committed, on condition that the upload stands where the part begins: so of two writers at one offset one comes
too late, and no byte of his is kept. The last part is committed together with the model or the dataset that all parts
become, by the way of every upload: an upload is never whole without being one.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio
from fastapi import Request
from sqlalchemy import Update, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.access.service import Caller
from app.blobs import quota, uploads
from app.blobs.open_uploads import OpenUploads
from app.blobs.receiving import body_of, content_length, refuse_empty, take_in, too_large
from app.blobs.upload_kinds import OCTET_STREAM, UploadKind
from app.blobs.uploads import Arrival
from app.config import Settings
from app.database import DATABASE_AWAY, WorkspaceDatabase
from app.datasets.service import DATASETS
from app.errors import Conflict, LatheError, NotFound, StorageFull, TooLarge, Unprocessable
from app.jobs.quota import refuse_excess_inspections
from app.jobs.tables import JobRow
from app.models.service import MODELS
from app.storage import ContentMissing, Storage
from app.uploads.parts import Body, Part, joined
from app.uploads.protocol import Checksum, InvalidUploadMetadata, read_metadata
from app.uploads.tables import ResumableUploadRow, UploadPartRow, part_key

# Each request leaves one at least, a row and a file. Where parts end by time (`PART_SECONDS`), so many take three days;
# where they end by size, the largest upload that is taken by default has 256.
MOST_PARTS = 10_000
# How long one request may take to make an upload whole before another may try: longer than storage takes to copy it.
FINISHING_SECONDS = 60.0
SLOWEST_STORAGE_BYTES_PER_SECOND = 20e6
KINDS: dict[str, UploadKind[Any]] = {"model": MODELS, "dataset": DATASETS}


class OffsetConflict(Conflict):
    code, title = "offset_conflict", "The upload stands at another offset"


class UploadBeingFinished(Conflict):
    code, title = "upload_being_finished", "Another request is making the upload whole"
    sends = ("Retry-After",)


class UploadOverrun(TooLarge):
    code, title = "upload_overrun", "More bytes came than the upload was said to have"


class TooManyParts(Unprocessable):
    code, title = "too_many_parts", "The upload came in too many pieces"


class UploadExpired(LatheError):
    status, code, title = 410, "upload_expired", "The upload waited too long for its next bytes"


@dataclass(frozen=True)
class Appended:
    """How an upload stands, and the inspection that was queued if it has just become whole."""

    row: ResumableUploadRow
    job: JobRow | None = None


@dataclass(frozen=True)
class ResumableUploads:
    """The resumable uploads of one workspace."""

    caller: Caller
    database: WorkspaceDatabase
    storage: Storage
    settings: Settings
    open_uploads: OpenUploads

    async def create(self, size_bytes: int, metadata_text: str) -> ResumableUploadRow:
        """An upload of so many bytes, none of which have come.

        Raises InvalidUploadMetadata, UnsupportedMediaType, EmptyUpload, TooLarge, StorageFull, StorageQuotaExceeded,
        TooManyResumableUploads.
        """
        metadata = read_metadata(metadata_text)
        kind, name = _kind(metadata), _name(metadata)
        media_type = uploads.media_type_of(KINDS[kind], metadata.get("filetype") or OCTET_STREAM)
        refuse_empty(size_bytes)
        if size_bytes > self.settings.api.max_upload_bytes:
            raise too_large(self.settings.api.max_upload_bytes)
        self._ensure_room(size_bytes, size_bytes)
        async with self.database.session_scope() as session:
            await quota.refuse_hopeless(session, self.caller.workspace_id, size_bytes, self.settings.limits)
            await quota.refuse_another_resumable(session, self.caller.workspace_id, self.settings.limits)
            row = ResumableUploadRow(
                id=uuid7(),
                workspace_id=self.caller.workspace_id,
                kind=kind,
                name=name,
                media_type=media_type,
                metadata_text=metadata_text,
                size_bytes=size_bytes,
                offset_bytes=0,
                expires_at=func.now() + self._patience(),
            )
            session.add(row)
            await session.flush()
            await session.refresh(row)
        return row

    async def find(self, upload_id: UUID) -> ResumableUploadRow:
        """Raises NotFound, UploadExpired."""
        async with self.database.reading_scope() as session:
            return await self._find(session, upload_id)

    async def append(
        self, row: ResumableUploadRow, request: Request, offset_bytes: int, checksum: Checksum | None
    ) -> Appended:
        """Keep what the request's body brings, which the client says begins at `offset_bytes`.

        Whatever ends it early, what came before is kept, unless there is a checksum: then it is all or nothing. Raises
        OffsetConflict, UploadBeingFinished, UploadOverrun, TooManyParts, ChecksumMismatch, IncompleteUpload, TooSlow,
        UnsupportedMediaType, StorageFull, StorageQuotaExceeded, TooManyUploads, TooManyQueuedInspections, NotFound,
        UploadExpired, Unavailable.
        """
        self.open_uploads.refuse_excess(self.caller.workspace_id)
        with self.open_uploads.counted(self.caller.workspace_id):
            return await self._append(row, request, offset_bytes, checksum)

    async def _append(
        self, row: ResumableUploadRow, request: Request, offset_bytes: int, checksum: Checksum | None
    ) -> Appended:
        if offset_bytes != row.offset_bytes:
            raise _conflict(row, offset_bytes)
        if row.accepted_id is None and row.finishing_until is not None:
            await self._refuse_being_finished(row.id)
        announced_bytes = content_length(request) or 0
        if announced_bytes > row.size_bytes - row.offset_bytes:
            raise _overrun(row)
        if announced_bytes and announced_bytes == row.size_bytes - row.offset_bytes:
            self._ensure_room(announced_bytes, row.size_bytes)
        body = Body(body_of(request, self.settings.api))
        while await body.has_more():
            room_bytes = row.size_bytes - row.offset_bytes
            if not room_bytes:
                raise _overrun(row)
            part = await body.store_part(self.storage, row.offset_bytes, room_bytes, checksum)
            if part.end_bytes == row.size_bytes:
                if await body.has_more():
                    await uploads.discard(self.storage, part.key)
                    raise _overrun(row)
                return await self._finish(row, part)
            row = await self._keep(row, part)
        if body.fault is not None:
            raise body.fault
        return Appended(row)

    def _ensure_room(self, missing_bytes: int, size_bytes: int) -> None:
        """For what has not come, and for the whole, which is written beside its parts. Raises StorageFull."""
        try:
            self.storage.ensure_room(missing_bytes + size_bytes)
        except StorageFull as full:
            raise StorageFull(
                f"{full.detail} Until a resumable upload is put together, it takes twice its {size_bytes} bytes.",
                remedy="Free some space, then try again; sent in one request, a file takes its size once.",
            ) from full

    async def terminate(self, upload_id: UUID) -> None:
        """Forget an upload, and delete what has come of it; what a whole one became stays. Raises NotFound."""
        async with self.database.session_scope() as session:
            gone = ResumableUploadRow.id == upload_id, ResumableUploadRow.workspace_id == self.caller.workspace_id
            found = await session.execute(select(ResumableUploadRow.id).where(*gone).with_for_update())
            if found.first() is None:
                raise _unknown(upload_id)
            files = await self._let_go(session, upload_id)
            await session.execute(delete(ResumableUploadRow).where(*gone))
        for file_id in files:
            await uploads.discard(self.storage, part_key(file_id))

    async def _keep(self, row: ResumableUploadRow, part: Part) -> ResumableUploadRow:
        """Let a part count.

        Raises OffsetConflict where another writer was faster, TooManyParts, StorageQuotaExceeded.
        """
        try:
            async with self.database.session_scope() as session:
                row = await self._advance(session, row, part)
                session.add(part.row(row.id))
                await session.flush()
                await self._refuse_another_part(session, row.id)
                await quota.refuse_excess(session, self.caller.workspace_id, self.settings.limits)
        except LatheError:  # raised before the commit; where that fails, it may have happened all the same
            await uploads.discard(self.storage, part.key)
            raise
        return row

    async def _finish(self, row: ResumableUploadRow, last: Part) -> Appended:
        """Let the bytes be what they were sent for, by the way of every upload. Raises as `append`."""
        try:
            async with self._right_to_finish(row, last):
                async with self.database.session_scope() as session:  # before gigabytes are copied for nothing
                    await refuse_excess_inspections(session, self.caller.workspace_id, self.settings.limits, more=1)
                parts = [*await self._parts(row), last]
                appended = await self._put_together(row, parts)
        except LatheError as error:
            await uploads.discard(self.storage, last.key)
            if isinstance(error, ContentMissing):  # another request may have terminated or finished it meanwhile
                present = await self.find(row.id)
                if present.offset_bytes != last.start_bytes:
                    raise _conflict(present, last.start_bytes) from error
            raise
        for part in parts:
            await uploads.discard(self.storage, part.key)
        return appended

    async def _put_together(self, row: ResumableUploadRow, parts: list[Part]) -> Appended:
        received = await take_in(
            joined(self.storage, parts),
            self.storage,
            self.caller.workspace_id,
            max_bytes=self.settings.api.max_upload_bytes,
            expected_bytes=row.size_bytes,
        )
        whole = row

        async def become(session: AsyncSession, accepted_id: UUID) -> None:
            nonlocal whole
            whole = await self._advance(session, row, parts[-1], accepted_id)
            await self._let_go(session, row.id)

        accepted = await uploads.accept(
            KINDS[row.kind],
            Arrival(received, row.name, row.media_type),
            caller=self.caller,
            database=self.database,
            storage=self.storage,
            settings=self.settings,
            along=become,
        )
        return Appended(whole, accepted.job)

    @asynccontextmanager
    async def _right_to_finish(self, row: ResumableUploadRow, last: Part) -> AsyncIterator[None]:
        """Nobody else copies the parts meanwhile; where it fails, the next one may at once.

        Raises OffsetConflict, UploadBeingFinished, NotFound, UploadExpired.
        """
        free = or_(ResumableUploadRow.finishing_until.is_(None), ResumableUploadRow.finishing_until <= func.now())
        patience = timedelta(seconds=FINISHING_SECONDS + row.size_bytes / SLOWEST_STORAGE_BYTES_PER_SECOND)
        take = (
            self._standing(row, last)
            .where(free)
            .values(finishing_until=func.now() + patience)
            .returning(ResumableUploadRow.finishing_until)
        )
        async with self.database.session_scope() as session:
            until = (await session.execute(take)).scalar_one_or_none()
            if until is None:
                present = await self._find(session, row.id)
                if present.offset_bytes != last.start_bytes:
                    raise _conflict(present, last.start_bytes)
                raise _busy(row.id)
        try:
            yield
        except BaseException:
            mine = ResumableUploadRow.id == row.id, ResumableUploadRow.finishing_until == until
            with anyio.CancelScope(shield=True), suppress(*DATABASE_AWAY):
                async with self.database.session_scope() as session:
                    await session.execute(update(ResumableUploadRow).where(*mine).values(finishing_until=None))
            raise

    async def _refuse_being_finished(self, upload_id: UUID) -> None:
        """Before bytes are taken that would be thrown away. Raises UploadBeingFinished."""
        is_busy = select(ResumableUploadRow.finishing_until > func.now()).where(ResumableUploadRow.id == upload_id)
        async with self.database.reading_scope() as session:
            if (await session.execute(is_busy)).scalar_one_or_none():
                raise _busy(upload_id)

    async def _advance(
        self, session: AsyncSession, row: ResumableUploadRow, part: Part, accepted_id: UUID | None = None
    ) -> ResumableUploadRow:
        """Raise the offset from where the part begins to where it ends.

        Raises OffsetConflict where it is not there any more, NotFound, UploadExpired.
        """
        statement = (
            self._standing(row, part)
            .values(offset_bytes=part.end_bytes, accepted_id=accepted_id, expires_at=func.now() + self._patience())
            .returning(ResumableUploadRow)
        )
        advanced = (await session.execute(statement)).scalar_one_or_none()
        if advanced is None:
            raise _conflict(await self._find(session, row.id), part.start_bytes)
        return advanced

    @staticmethod
    def _standing(row: ResumableUploadRow, part: Part) -> Update:
        """A change of the upload, as long as it stands where the part begins."""
        return update(ResumableUploadRow).where(
            ResumableUploadRow.id == row.id,
            ResumableUploadRow.offset_bytes == part.start_bytes,
            ResumableUploadRow.expires_at > func.now(),
        )

    async def _find(self, session: AsyncSession, upload_id: UUID) -> ResumableUploadRow:
        """Raises NotFound, UploadExpired by the database's clock."""
        statement = select(ResumableUploadRow, ResumableUploadRow.expires_at <= func.now()).where(
            ResumableUploadRow.id == upload_id, ResumableUploadRow.workspace_id == self.caller.workspace_id
        )
        found = (await session.execute(statement)).one_or_none()
        if found is None:
            raise _unknown(upload_id)
        row, expired = found
        if expired:
            raise UploadExpired(
                f"The upload {upload_id} has waited since its last bytes for more than "
                f"{self.settings.api.resumable_upload_seconds:g} s.",
                remedy="Begin a new one: POST /v1/uploads.",
            )
        return row

    async def _refuse_another_part(self, session: AsyncSession, upload_id: UUID) -> None:
        """Raises TooManyParts where with the one that was just added there are more than may be."""
        count = select(func.count()).select_from(UploadPartRow).where(UploadPartRow.upload_id == upload_id)
        if (await session.execute(count)).scalar_one() > MOST_PARTS:
            raise TooManyParts(
                f"The upload {upload_id} consists of {MOST_PARTS} parts, and has to become whole with the next one.",
                remedy="Send all that is left in one request with an `Upload-Checksum`, or begin a new upload and send "
                "more bytes a request.",
            )

    async def _parts(self, row: ResumableUploadRow) -> list[Part]:
        async with self.database.reading_scope() as session:
            statement = select(UploadPartRow).where(UploadPartRow.upload_id == row.id)
            rows = (await session.execute(statement.order_by(UploadPartRow.start_bytes))).scalars()
            return [Part(one.start_bytes, one.size_bytes, one.file_id) for one in rows]

    async def _let_go(self, session: AsyncSession, upload_id: UUID) -> list[UUID]:
        """The files that are garbage from now on."""
        statement = delete(UploadPartRow).where(UploadPartRow.upload_id == upload_id).returning(UploadPartRow.file_id)
        return list((await session.execute(statement)).scalars())

    def _patience(self) -> timedelta:
        return timedelta(seconds=self.settings.api.resumable_upload_seconds)


def _kind(metadata: dict[str, str]) -> str:
    kind = metadata.get("kind", "")
    if kind not in KINDS:
        raise InvalidUploadMetadata(
            f"`kind` is `{kind[:100]}`." if kind else "`Upload-Metadata` does not say a `kind`.",
            remedy=f"Let `kind` be the base64 of {' or '.join(KINDS)}.",
        )
    return kind


def _name(metadata: dict[str, str]) -> str:
    name = metadata.get("name") or metadata.get("filename", "")
    if len(name) > uploads.MAX_NAME_CHARACTERS or not re.fullmatch(uploads.NAME_PATTERN, name):
        raise InvalidUploadMetadata(
            f"The name has {len(name)} characters, or control characters among them.",
            remedy="Let `name` or `filename` in `Upload-Metadata` be the base64 of 1 to 255 printable characters.",
        )
    return name


def _unknown(upload_id: UUID) -> NotFound:
    return NotFound(f"There is no upload {upload_id}.", remedy="It may have been deleted: begin a new one.")


def _conflict(row: ResumableUploadRow, offset_bytes: int) -> OffsetConflict:
    return OffsetConflict(
        f"The upload {row.id} stands at byte {row.offset_bytes}, and the request begins at {offset_bytes}.",
        remedy=f"Go on from there. HEAD /v1/uploads/{row.id} says how it stands.",
    )


def _busy(upload_id: UUID) -> UploadBeingFinished:
    return UploadBeingFinished(
        f"The last bytes of the upload {upload_id} have come with another request, which puts it together.",
        remedy=f"Wait. HEAD /v1/uploads/{upload_id} names what it became, or send them again if that request failed.",
        headers={"Retry-After": "2"},
    )


def _overrun(row: ResumableUploadRow) -> UploadOverrun:
    return UploadOverrun(
        f"The upload {row.id} was said to have {row.size_bytes} bytes.", remedy="Begin a new one of the right length."
    )
