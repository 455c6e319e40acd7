"""Who makes a resumable upload whole: one request at a time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, update

from app.database import Database
from app.errors import Unavailable
from app.storage import Storage
from app.uploads.tables import ResumableUploadRow
from tests.app.resumable_uploads.test_protocol import CONTENT, SHA256, Headers, begin, files, head, patch
from tests.app.test_problems import problem


def finishing(database: Database, seconds: float) -> None:
    """As if a request were making the upload whole, and had so many seconds left."""
    with database.session_scope() as session:
        until = func.now() + timedelta(seconds=seconds)
        session.execute(update(ResumableUploadRow).values(finishing_until=until))


async def test_of_two_who_send_the_last_bytes_one_makes_the_upload_whole(
    client: httpx.AsyncClient, writer: Headers, storage: Storage
) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:1000])
    answers = await asyncio.gather(*(patch(client, writer, address, 1000, CONTENT[1000:]) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [204, 409, 409, 409]
    result = (await head(client, writer, address)).headers["upload-result"]
    assert (await client.get(result, headers=writer)).json()["sha256"] == SHA256
    assert (len(list(storage.list_sync("blobs"))), files(storage)) == (1, [])


async def test_of_many_who_send_the_last_bytes_one_copies_the_others(
    client: httpx.AsyncClient, app: FastAPI, writer: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:-1])
    store: Storage = app.state.storage
    read = store.read
    copied: list[int] = []

    async def slowly(key: str, start: int, end: int) -> AsyncIterator[bytes]:
        copied.append(end - start)
        await asyncio.sleep(0.2)  # for the others to come
        return await read(key, start, end)

    monkeypatch.setattr(store, "read", slowly)
    answers = await asyncio.gather(*(patch(client, writer, address, len(CONTENT) - 1, CONTENT[-1:]) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * 7
    assert sorted(copied) == [1, len(CONTENT) - 1]
    assert files(store) == []
    assert (await patch(client, writer, address, len(CONTENT), b"")).status_code == 204


async def test_who_makes_an_upload_whole_is_not_disturbed(
    client: httpx.AsyncClient, writer: Headers, storage: Storage, database: Database
) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:1000])
    finishing(database, 60)
    before = files(storage)
    for end in (2000, len(CONTENT)):
        answer = await patch(client, writer, address, 1000, CONTENT[1000:end])
        problem(answer, 409, "upload_being_finished")
        assert answer.headers["retry-after"] == "2"
    assert files(storage) == before
    finishing(database, -1)  # he has died meanwhile
    assert (await patch(client, writer, address, 1000, CONTENT[1000:])).status_code == 204


async def test_an_upload_that_could_not_be_made_whole_may_be_at_once(
    client: httpx.AsyncClient, app: FastAPI, writer: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:1000])

    async def fail(*_: object) -> AsyncIterator[bytes]:
        raise Unavailable("Storage does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(app.state.storage, "read", fail)
        problem(await patch(client, writer, address, 1000, CONTENT[1000:]), 503, "unavailable")
    assert (await patch(client, writer, address, 1000, CONTENT[1000:])).status_code == 204
