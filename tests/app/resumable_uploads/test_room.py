"""A resumable upload takes twice its size on a disk, which is said before its bytes are sent."""

import shutil
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from app.config import ApiSettings, Settings
from app.database import Database
from app.storage import Storage
from app.uploads.tables import ResumableUploadRow
from tests.app.resumable_uploads.test_protocol import A_MODEL, TUS, Headers, begin, files, patch
from tests.app.test_problems import problem


def keep_free(app: FastAPI, share: float) -> None:
    """A reserve of this share of what is free on the disk, and uploads of any size."""
    settings: Settings = app.state.settings
    api = ApiSettings(max_upload_bytes=1 << 60, min_free_bytes=int(share * free_bytes(settings)))
    app.state.settings.api = api
    app.state.storage = Storage(settings)


def free_bytes(settings: Settings) -> int:
    return shutil.disk_usage(settings.storage_url.removeprefix("file://")).free


@pytest.mark.parametrize(("share", "status"), [(0.4, 201), (0.6, 507)])
async def test_there_must_be_room_for_an_upload_and_its_parts(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, share: float, status: int
) -> None:
    keep_free(app, 0.0)
    size = int(share * free_bytes(app.state.settings))
    sent = writer | TUS | {"Upload-Length": str(size), "Upload-Metadata": A_MODEL}
    answer = await client.post("/v1/uploads", headers=sent)
    if status == 201:
        assert answer.status_code == 201, answer.text
    else:
        assert "twice" in problem(answer, 507, "storage_full")["detail"]


async def test_the_last_bytes_are_not_taken_where_the_whole_finds_no_room(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    keep_free(app, 0.0)
    size = int(0.4 * free_bytes(app.state.settings))
    address = await begin(client, writer, size=size)
    keep_free(app, 0.8)
    assert (await patch(client, writer, address, 0, bytes(10))).status_code == 204, "there is room for a part"
    with database.session_scope() as session:
        begun = update(ResumableUploadRow).where(ResumableUploadRow.id == UUID(address.rpartition("/")[2]))
        session.execute(begun.values(offset_bytes=size - 10))
    kept = files(storage)
    answer = await patch(client, writer, address, size - 10, bytes(10))
    assert "twice" in problem(answer, 507, "storage_full")["detail"]
    assert files(storage) == kept
    keep_free(app, 0.5)  # what lies there already is not asked for again
    answer = await patch(client, writer, address, size - 10, bytes(10))
    assert answer.status_code != 507, answer.text
