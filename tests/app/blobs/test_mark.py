"""Storage and database find out whether they belong together."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from app.blobs.mark import FOREIGN, KEY, MISSING, UNMARKED, mark, mismatch, settle
from app.blobs.tables import StorageMarkRow
from app.config import Settings
from app.database import AsyncDatabase, Database
from app.storage import Storage
from worker.storage_mark import StorageMark


@pytest.fixture
async def of_api(settings: Settings, database: Database) -> AsyncIterator[AsyncDatabase]:
    """The database as the API has it; it has marked no storage."""
    own = AsyncDatabase(settings)
    yield own
    await own.dispose()


async def test_those_who_come_first_mark_it_and_agree(
    of_api: AsyncDatabase, database: Database, storage: Storage
) -> None:
    assert mismatch(database, storage) == UNMARKED
    assert await asyncio.gather(*(settle(of_api, storage) for _ in range(4))) == [None] * 4
    assert mismatch(database, storage) is None


async def test_the_storage_of_another_database_is_left_as_it_is(
    of_api: AsyncDatabase, database: Database, storage: Storage
) -> None:
    storage.put_note_sync(KEY, b"another database's")
    assert await settle(of_api, storage) == FOREIGN
    assert mismatch(database, storage) == FOREIGN
    assert storage.note_sync(KEY) == b"another database's"


async def test_an_empty_folder_in_place_of_storage_is_not_marked_unasked(
    of_api: AsyncDatabase, database: Database, storage: Storage, tmp_path: Path
) -> None:
    await settle(of_api, storage)
    shutil.rmtree(tmp_path / "storage")
    (tmp_path / "storage").mkdir()
    assert await settle(of_api, storage) == MISSING
    assert storage.note_sync(KEY) is None
    mark(database, storage)
    assert (mismatch(database, storage), await settle(of_api, storage)) == (None, None)


async def test_who_breaks_off_before_the_database_knows_of_its_mark_is_followed_by_one_who_goes_on(
    of_api: AsyncDatabase, database: Database, storage: Storage
) -> None:
    await settle(of_api, storage)
    with database.session_scope() as session:
        session.execute(update(StorageMarkRow).values(marked_at=None))
    assert await settle(of_api, storage) is None
    storage.delete_sync(KEY)
    assert mismatch(database, storage) == MISSING


def test_a_worker_waits_until_storage_is_that_of_its_database_and_says_once_what_it_waits_for(
    database: Database, storage: Storage
) -> None:
    storage.put_note_sync(KEY, b"another database's")
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            mark(database, storage)

    with capture_logs() as said:
        StorageMark(database, storage).wait(sleep)
    assert len(waited) == 3
    assert [(entry["event"], entry["reason"]) for entry in said] == [("storage_not_ours", FOREIGN)]
