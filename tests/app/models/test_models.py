"""Models: what is theirs alone among uploads."""

import asyncio
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select

from app.blobs.tables import BlobRow
from app.database import Database
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.storage import Storage
from tests.app.jobs.factories import add_job
from tests.app.uploads import OCTETS, settle, upload

Headers = dict[str, str]


def counts(database: Database) -> list[int]:
    with database.session_scope() as session:
        tables = (ModelRow, BlobRow, JobRow)
        return [session.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]


async def test_the_original_bytes_come_back_whatever_inspection_says(
    client: httpx.AsyncClient, writer: Headers, database: Database
) -> None:
    shown = await upload(client, writer, content=b"no model at all")
    settle(database, "models", shown["id"], {"code": "not_onnx", "title": "T", "detail": "D"})
    answer = await client.get(f"/v1/models/{shown['id']}/content", headers=writer)
    assert (answer.status_code, answer.content) == (200, b"no model at all")


@pytest.mark.parametrize(
    ("name", "media_type", "file_name"),
    [
        ("digits", "application/octet-stream", "digits.onnx"),
        ("digits", "application/x-tar", "digits.tar"),
        ("digits.onnx", "application/octet-stream", "digits.onnx"),
    ],
    ids=["bare", "tar", "named"],
)
async def test_a_download_is_named_after_the_model(
    client: httpx.AsyncClient, writer: Headers, name: str, media_type: str, file_name: str
) -> None:
    headers = writer | {"Content-Type": media_type}
    shown = (await client.post(f"/v1/models?name={name}", content=b"bytes", headers=headers)).json()
    answer = await client.head(f"/v1/models/{shown['id']}/content", headers=writer)
    assert answer.headers["content-disposition"] == f'attachment; filename="{file_name}"'
    assert answer.headers["content-type"] == media_type


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_a_model_stays_while_a_job_uses_it(
    client: httpx.AsyncClient, writer: Headers, database: Database, state: str
) -> None:
    shown = await upload(client, writer)
    settle(database, "models", shown["id"])
    lease = {"lease_expires_at": func.now()} if state == "running" else {}
    job_id = add_job(database, model_id=UUID(shown["id"]), state=state, **lease)
    answer = await client.delete(f"/v1/models/{shown['id']}", headers=writer)
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert str(job_id) in answer.json()["detail"]


async def test_a_finished_job_does_not_hold_its_model(
    client: httpx.AsyncClient, writer: Headers, database: Database
) -> None:
    shown = await upload(client, writer)
    settle(database, "models", shown["id"])
    add_job(database, model_id=UUID(shown["id"]), state="succeeded")
    assert (await client.delete(f"/v1/models/{shown['id']}", headers=writer)).status_code == 204


async def test_the_same_bytes_at_the_same_time_are_one_model(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    answers = await asyncio.gather(
        *(client.post("/v1/models?name=x", content=b"bytes", headers=writer | OCTETS) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert counts(database) == [1, 1, 1]
    assert len(list(storage.list_sync("blobs"))) == 1


async def test_a_model_is_deleted_or_used_and_never_both(
    client: httpx.AsyncClient, writer: Headers, database: Database
) -> None:
    for index in range(8):
        shown = await upload(client, writer, content=bytes([index]))
        settle(database, "models", shown["id"])
        body = {"model_id": shown["id"], "recipe": [{"pass": "optimize_graph"}]}
        deleted, submitted = await asyncio.gather(
            client.delete(f"/v1/models/{shown['id']}", headers=writer),
            client.post("/v1/jobs", json=body, headers=writer),
        )
        assert (deleted.status_code, submitted.status_code) in {(204, 404), (409, 202)}
