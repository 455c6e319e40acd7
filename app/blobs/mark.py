"""The mark that a database and its storage share, so that neither takes another's for its own.

A collector removes files that no row names, and a job fails whose files are not there: with the storage of another
database that would be every file and every job. The first API that starts marks storage that bears no mark, for a
database that has marked none. From then on an empty folder is one that is not mounted, and nothing is marked unasked.
"""

from uuid import uuid4

import anyio
import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.blobs.tables import StorageMarkRow
from app.database import AsyncDatabase, Database
from app.errors import LatheError
from app.storage import Storage

KEY = "mark"
UNMARKED = "Storage bears no mark yet: the first API that starts on this database makes it."
MISSING = "Storage lacks the mark of this database: it is another folder or bucket than the API's, or is not mounted."
FOREIGN = "Storage bears the mark of another database, whose files it keeps."
REMEDY = "Let STORAGE_URL name the storage of this database. Where it does, `lathe mark-storage` marks it."
LOOK_AGAIN_SECONDS = 5.0
MARKED = update(StorageMarkRow).where(StorageMarkRow.marked_at.is_(None)).values(marked_at=func.now())
log = structlog.get_logger()


def mismatch(database: Database, storage: Storage) -> str | None:
    """Why this is not known to be the storage of this database; None: it is. Raises Unavailable."""
    with database.session_scope() as session:
        row = _known(session)
    return _difference(row, storage.note_sync(KEY))


def mark(database: Database, storage: Storage) -> None:
    """Make this the storage of this database, whatever it was before. Raises StorageFull, Unavailable."""
    with database.session_scope() as session:
        row = _ensure(session)
    storage.put_note_sync(KEY, _content(row))
    with database.session_scope() as session:
        session.execute(MARKED)


async def settle(database: AsyncDatabase, storage: Storage) -> str | None:
    """As `mismatch`, but storage without a mark is marked where the database has marked none.

    Of several who do so at once one is first, and the others find its mark. Whoever breaks off in between leaves a mark
    that is known here, and is met by the next. Raises StorageFull, Unavailable.
    """
    async with database.session_scope() as session:
        row = await session.run_sync(_ensure)
    if row.marked_at is None:
        await storage.add_note(KEY, _content(row))
    reason = _difference(row, await storage.note(KEY))
    if reason is None and row.marked_at is None:
        async with database.session_scope() as session:
            await session.execute(MARKED)
    return reason


async def keep_settling(database: AsyncDatabase, storage: Storage) -> None:
    """`settle`, again and again until storage is this database's; what keeps it from that is logged once."""
    told: str | None = None
    while True:
        cause = ""
        try:
            lacking = await settle(database, storage)
        except (SQLAlchemyError, LatheError) as error:
            lacking, cause = str(error), str(error.__cause__ or "")
        if lacking is None:
            return
        if lacking != told:
            log.error("storage_not_settled", reason=lacking, cause=cause, remedy=REMEDY)
        told = lacking
        await anyio.sleep(LOOK_AGAIN_SECONDS)


def _known(session: Session) -> StorageMarkRow | None:
    return session.scalars(select(StorageMarkRow)).one_or_none()


def _ensure(session: Session) -> StorageMarkRow:
    """The row, made where there is none."""
    row = _known(session)
    if row is None:
        session.execute(insert(StorageMarkRow).values(id=uuid4()).on_conflict_do_nothing())
        row = session.scalars(select(StorageMarkRow)).one()
    return row


def _content(row: StorageMarkRow) -> bytes:
    return str(row.id).encode()


def _difference(row: StorageMarkRow | None, found: bytes | None) -> str | None:
    if found is not None:
        return None if row is not None and found == _content(row) else FOREIGN
    return UNMARKED if row is None or row.marked_at is None else MISSING
