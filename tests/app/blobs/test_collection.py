"""Garbage: what nothing refers to goes, what anything refers to stays."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import delete, func, select, text
from uuid_utils.compat import uuid7

from app.artifacts.tables import ArtifactRow
from app.blobs.collection import GarbageCollector
from app.blobs.tables import BlobRow, storage_key
from app.database import Database
from app.errors import Unavailable
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job
from tests.app.uploads import settle, upload

Headers = dict[str, str]


def store(storage: Storage, folder: Path, workspace_id: UUID) -> UUID:
    """Bytes in storage, without a row."""
    blob_id = uuid7()
    path = folder / str(blob_id)
    path.write_bytes(blob_id.bytes)
    storage.store(path, storage_key(workspace_id, blob_id))
    return blob_id


def keep(database: Database, workspace_id: UUID, blob_id: UUID) -> None:
    with database.session_scope() as session:
        session.add(BlobRow(id=blob_id, workspace_id=workspace_id, sha256=blob_id.bytes * 2, size_bytes=16))


def stored(storage: Storage) -> list[str]:
    return sorted(file.key for file in storage.list_sync("blobs"))


def blob_count(database: Database) -> int:
    with database.session_scope() as session:
        return session.execute(select(func.count()).select_from(BlobRow)).scalar_one()


async def test_the_bytes_of_what_was_deleted_go(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    gone, kept = await upload(client, writer, content=b"gone"), await upload(client, writer, content=b"kept")
    for shown in (gone, kept):
        settle(database, "models", shown["id"])
    await client.delete(f"/v1/models/{gone['id']}", headers=writer)
    assert collect_garbage(database, storage, grace_seconds=0) == 1
    assert len(stored(storage)) == blob_count(database) == 1
    assert (await client.get(f"/v1/models/{kept['id']}/content", headers=writer)).content == b"kept"


async def test_bytes_stay_while_anything_else_refers_to_them(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    model = await upload(client, writer, "models")
    await upload(client, writer, "datasets")
    settle(database, "models", model["id"])
    await client.delete(f"/v1/models/{model['id']}", headers=writer)
    assert collect_garbage(database, storage, grace_seconds=0) == 0


def test_an_artifact_keeps_its_bytes(database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path) -> None:
    blob_id = store(storage, tmp_path, workspace_id)
    keep(database, workspace_id, blob_id)
    job_id = add_job(database)
    with database.session_scope() as session:
        session.add(
            ArtifactRow(
                workspace_id=workspace_id,
                job_id=job_id,
                blob_id=blob_id,
                kind="model",
                file_name="model.onnx",
                media_type="application/octet-stream",
                sha256=blob_id.bytes * 2,
                size_bytes=16,
            )
        )
    assert collect_garbage(database, storage, grace_seconds=0) == 0
    assert len(stored(storage)) == 1


def test_files_without_a_row_go_and_so_do_the_remains_of_an_interrupted_write(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path
) -> None:
    store(storage, tmp_path, workspace_id)
    remains = tmp_path / "storage" / "blobs" / str(workspace_id) / f"{uuid7()}#1"
    remains.write_bytes(b"half")
    assert collect_garbage(database, storage, grace_seconds=0) == 2
    assert stored(storage) == []


def test_what_is_younger_than_the_grace_is_left_alone(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path
) -> None:
    store(storage, tmp_path, workspace_id)
    keep(database, workspace_id, store(storage, tmp_path, workspace_id))
    assert collect_garbage(database, storage, grace_seconds=60) == 0
    assert len(stored(storage)) == 2


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the collector, in its one place."""
    clock = [1000.0]
    monkeypatch.setattr("app.blobs.collection.time.monotonic", lambda: clock[0])
    return clock


def test_a_file_goes_once_it_was_seen_without_a_row_for_the_grace(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path, now: list[float]
) -> None:
    """However old it looks: a clock that was set ahead would make garbage of what is being written."""
    _, late = (store(storage, tmp_path, workspace_id) for _ in range(2))
    collector = GarbageCollector(database, storage, grace_seconds=60)
    assert collector.collect() == 0
    now[0] += 61
    keep(database, workspace_id, late)
    assert collector.collect() == 1
    assert stored(storage) == [storage_key(workspace_id, late)]
    # What has had a row is looked at anew from then on.
    with database.session_scope() as session:
        session.execute(delete(BlobRow).where(BlobRow.id == late))
    assert collector.collect() == 0
    now[0] += 61
    assert collector.collect() == 1


def test_a_file_that_is_still_written_is_no_garbage_however_long_that_takes(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path, now: list[float]
) -> None:
    written = store(storage, tmp_path, workspace_id)
    collector = GarbageCollector(database, storage, grace_seconds=60)
    for size in range(3):
        assert collector.collect() == 0
        now[0] += 61
        (tmp_path / "longer").write_bytes(bytes(size))
        storage.store(tmp_path / "longer", storage_key(workspace_id, written))
    assert collector.collect() == 0
    now[0] += 61
    assert collector.collect() == 1


def test_a_file_that_cannot_be_removed_keeps_nobody_from_the_others(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, _ = (store(storage, tmp_path, workspace_id) for _ in range(2))
    removing = storage.delete_sync

    def unless_fast(key: str) -> None:
        if key == storage_key(workspace_id, fast):
            raise Unavailable("Storage does not answer.")
        removing(key)

    monkeypatch.setattr(storage, "delete_sync", unless_fast)
    assert collect_garbage(database, storage, grace_seconds=0) == 1
    assert stored(storage) == [storage_key(workspace_id, fast)]


def test_bytes_that_came_again_lately_are_left_alone(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path
) -> None:
    old, touched = (store(storage, tmp_path, workspace_id) for _ in range(2))
    for blob_id in (old, touched):
        keep(database, workspace_id, blob_id)
    with database.session_scope() as session:
        session.execute(text("UPDATE blobs SET touched_at = now() - interval '2 hours' WHERE id = :id"), {"id": old})
    assert collect_garbage(database, storage, grace_seconds=3600) == 1
    assert stored(storage) == [storage_key(workspace_id, touched)]


@pytest.mark.parametrize("collectors", [2, 4])
def test_collectors_do_not_get_in_each_others_way(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path, collectors: int
) -> None:
    for _ in range(20):
        keep(database, workspace_id, store(storage, tmp_path, workspace_id))
        store(storage, tmp_path, workspace_id)
    with ThreadPoolExecutor(collectors) as threads:
        list(threads.map(lambda _: collect_garbage(database, storage, 0), range(collectors)))
    assert (stored(storage), blob_count(database)) == ([], 0)
