"""The same bytes again repair a stored copy that is lost or damaged, for everything that refers to it."""

from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from app.artifacts.tables import ArtifactRow
from app.blobs.tables import BlobRow, storage_key
from app.database import Base, Database
from app.errors import Fault
from app.jobs import lease
from app.jobs.states import JobState
from app.jobs.tables import JobRow
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job
from tests.app.uploads import TABLES, settle, upload

Headers = dict[str, str]


@pytest.fixture(params=["models", "datasets"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def blob(database: Database) -> BlobRow:
    """The only one."""
    with database.session_scope() as session:
        return session.execute(select(BlobRow)).scalar_one()


def fail_inspection(database: Database, code: str) -> None:
    """As the supervisor does that cannot read what is to be inspected."""
    with database.session_scope() as session:
        job_id = session.execute(select(JobRow.id).where(JobRow.state == JobState.QUEUED)).scalar_one()
        claim = lease.claim(session, job_id, "worker:1", 45.0)
        assert claim is not None
        lease.finish(session, claim, JobState.FAILED, error=Fault(code=code, title="T", detail="D"))


async def bytes_of(database: Database, storage: Storage, table: type[Base], row_id: str) -> bytes:
    """What storage has for a row."""
    with database.session_scope() as session:
        row = session.get_one(table, UUID(row_id))
        key = storage_key(row.workspace_id, row.blob_id)
    return b"".join([chunk async for chunk in await storage.read(key, 0, row.size_bytes)])


@pytest.mark.parametrize("left", [None, b"byt"], ids=["lost", "cut-off"])
async def test_a_ready_upload_whose_bytes_are_lost_is_ready_again_with_them(
    client: httpx.AsyncClient,
    writer: Headers,
    database: Database,
    storage: Storage,
    kind: str,
    left: bytes | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first = await upload(client, writer, kind)
    settle(database, kind, first["id"])
    key = blob(database).storage_key
    storage.delete_sync(key)
    if left is not None:
        (path := tmp_path_factory.mktemp("left") / "left").write_bytes(left)
        storage.store(path, key)
    again = await upload(client, writer, kind)
    assert (again["id"], again["status"]) == (first["id"], "ready")
    assert await bytes_of(database, storage, TABLES[kind], first["id"]) == b"bytes"
    assert blob(database).storage_key != key


@pytest.mark.parametrize("code", ["content_corrupt", "content_missing"])
async def test_bytes_that_an_inspection_could_not_read_are_stored_anew_and_inspected(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage, kind: str, code: str
) -> None:
    first = await upload(client, writer, kind)
    spoilt = blob(database).storage_key
    fail_inspection(database, code)
    again = await upload(client, writer, kind)
    assert (again["id"], again["status"], again["problem"]) == (first["id"], "inspecting", None)
    repaired = blob(database).storage_key
    assert repaired != spoilt
    collect_garbage(database, storage, 0)
    assert [file.key for file in storage.list_sync("blobs")] == [repaired]
    # Once is enough: what failed before the repair says nothing about the new copy.
    await upload(client, writer, kind)
    assert blob(database).storage_key == repaired
    assert [file.key for file in storage.list_sync("blobs")] == [repaired]


async def test_all_that_shares_the_bytes_is_repaired_at_once(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    shared = [(table, (await upload(client, writer, kind))["id"]) for kind, table in TABLES.items()]
    row = blob(database)
    about = {"workspace_id": row.workspace_id, "blob_id": row.id, "sha256": row.sha256, "size_bytes": row.size_bytes}
    artifact = ArtifactRow(
        id=UUID(int=1), job_id=add_job(database), kind="model", file_name="m", media_type="x", **about
    )
    with database.session_scope() as session:
        session.add(artifact)
    storage.delete_sync(row.storage_key)
    await upload(client, writer, "models")
    for table, row_id in (*shared, (ArtifactRow, str(UUID(int=1)))):
        assert await bytes_of(database, storage, table, row_id) == b"bytes"
