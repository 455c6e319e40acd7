"""What models and datasets have in common: upload, list, get, delete. Each test runs for both."""

import base64
import hashlib
import json
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import httpx
import pytest
import redis
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import func, or_, select, update

from app.blobs.open_uploads import OpenUploads
from app.blobs.tables import BlobRow
from app.config import ApiSettings, Settings
from app.database import Database
from app.errors import Unavailable
from app.jobs.subjects import SUBJECT
from app.jobs.tables import JobDatasetRow, JobRow
from app.paging import MAX_PAGE_BYTES
from app.queue import Queue
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.uploads import FACTS, OCTETS, TABLES, end_jobs, settle, upload

Headers = dict[str, str]


@pytest.fixture(params=["models", "datasets"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def count(database: Database, table: Any) -> int:
    with database.session_scope() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def stored(storage: Storage) -> list[str]:
    return [file.key for file in storage.list_sync("blobs")]


async def test_an_upload_is_stored_hashed_and_queued_for_inspection(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage, kind: str
) -> None:
    answer = await client.post(f"/v1/{kind}?name=digits", content=b"some bytes", headers=writer | OCTETS)
    shown = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/{kind}/{shown['id']}"
    assert shown["status"] == "inspecting"
    assert shown["name"] == "digits"
    assert shown["size_bytes"] == 10
    assert shown["sha256"] == hashlib.sha256(b"some bytes").hexdigest()
    assert {shown[field] for field in FACTS[kind]} == {None} if kind == "models" else shown["arrays"] is None
    with database.session_scope() as session:
        job = session.execute(select(JobRow)).scalar_one()
        subject = session.execute(select(JobDatasetRow)).scalar_one_or_none()
    assert (job.kind, job.queue, job.state) == (f"inspect_{kind[:-1]}", "inspect", "queued")
    if kind == "models":
        assert str(job.model_id) == shown["id"]
    else:
        assert subject is not None
        assert (str(subject.dataset_id), subject.role) == (shown["id"], SUBJECT)
    [key] = stored(storage)
    assert b"".join([chunk async for chunk in await storage.read(key, 0, 10)]) == b"some bytes"


async def test_the_same_bytes_again_are_the_same_upload(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage, kind: str
) -> None:
    first = await upload(client, writer, kind, name="first")
    answer = await client.post(f"/v1/{kind}?name=second", content=b"bytes", headers=writer | OCTETS)
    assert answer.status_code == 200
    assert answer.headers["location"] == f"/v1/{kind}/{first['id']}"
    assert answer.json() == first
    assert len(stored(storage)) == 1
    assert count(database, JobRow) == 1


async def test_a_model_and_a_dataset_of_the_same_bytes_share_them(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    await upload(client, writer, "models")
    await upload(client, writer, "datasets")
    assert (count(database, BlobRow), len(stored(storage))) == (1, 1)


async def test_workspaces_do_not_share_bytes(
    client: httpx.AsyncClient, writer: Headers, stranger: Headers, storage: Storage, kind: str
) -> None:
    mine, theirs = await upload(client, writer, kind), await upload(client, stranger, kind)
    assert mine["id"] != theirs["id"]
    assert len(stored(storage)) == 2


@pytest.mark.parametrize(
    "code",
    [
        "worker_lost",
        "internal_error",
        "runner_crashed",
        "inspection_interrupted",
        "inspection_time_limit",
        "out_of_memory",
        "disk_full",
        "file_too_large",
    ],
)
async def test_a_rejection_that_was_our_fault_is_inspected_again(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str, code: str
) -> None:
    first = await upload(client, writer, kind)
    settle(database, kind, first["id"], {"code": code, "title": "T", "detail": "D"})
    again = await upload(client, writer, kind)
    assert (again["id"], again["status"], again["problem"]) == (first["id"], "inspecting", None)
    assert count(database, JobRow) == 2


async def test_a_rejection_that_was_the_files_fault_stays(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    first = await upload(client, writer, kind)
    problem = {"code": "not_onnx", "title": "T", "detail": "D", "remedy": "R"}
    settle(database, kind, first["id"], problem)
    again = await upload(client, writer, kind)
    assert (again["status"], again["problem"]) == ("rejected", problem)
    assert count(database, JobRow) == 1


async def test_a_rejected_file_sent_under_another_type_is_inspected_as_that(
    client: httpx.AsyncClient, writer: Headers, database: Database
) -> None:
    first = await upload(client, writer)
    settle(database, "models", first["id"], {"code": "not_onnx", "title": "T", "detail": "D"})
    answer = await client.post(
        "/v1/models?name=x", content=b"bytes", headers=writer | {"Content-Type": "application/x-tar"}
    )
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["media_type"]) == ("inspecting", "application/x-tar")


async def test_what_was_deleted_comes_back_as_a_new_upload(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    first = await upload(client, writer, kind)
    settle(database, kind, first["id"])
    assert (await client.delete(f"/v1/{kind}/{first['id']}", headers=writer)).status_code == 204
    assert (await client.get(f"/v1/{kind}/{first['id']}", headers=writer)).status_code == 404
    assert (await client.delete(f"/v1/{kind}/{first['id']}", headers=writer)).status_code == 404
    assert (await client.get(f"/v1/{kind}", headers=writer)).json()["items"] == []
    assert (await upload(client, writer, kind))["id"] != first["id"]


async def test_what_inspection_read_goes_with_the_bytes(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    for content, problem in ((b"good", None), (b"bad", {"code": "not_onnx", "title": "T", "detail": "At node `x`."})):
        shown = await upload(client, writer, kind, content)
        settle(database, kind, shown["id"], problem)
        assert (await client.delete(f"/v1/{kind}/{shown['id']}", headers=writer)).status_code == 204
    table = TABLES[kind]
    kept = select(func.count()).where(or_(table.inspection.is_not(None), table.problem.is_not(None)))
    with database.session_scope() as session:
        assert session.scalar(kept) == 0


async def test_deleting_waits_for_the_inspection(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    shown = await upload(client, writer, kind)
    refused = await client.delete(f"/v1/{kind}/{shown['id']}", headers=writer)
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    with database.session_scope() as session:
        assert str(session.execute(select(JobRow.id)).scalar_one()) in refused.json()["remedy"]
    end_jobs(database)
    assert (await client.delete(f"/v1/{kind}/{shown['id']}", headers=writer)).status_code == 204


async def test_a_list_is_paged_and_filtered(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    shown = [await upload(client, writer, kind, content=bytes([i]), name=f"n{i % 2}") for i in range(1, 6)]
    settle(database, kind, shown[0]["id"])
    newest_first = [entry["id"] for entry in reversed(shown)]
    ids: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"/v1/{kind}", params=query, headers=writer)).json()
        ids += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids == newest_first
    ready = (await client.get(f"/v1/{kind}?status=ready", headers=writer)).json()["items"]
    assert [entry["id"] for entry in ready] == [shown[0]["id"]]
    named = (await client.get(f"/v1/{kind}?name=n0", headers=writer)).json()["items"]
    assert [entry["id"] for entry in named] == [shown[3]["id"], shown[1]["id"]]


async def test_a_page_ends_early_where_inspections_said_much(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    shown = [await upload(client, writer, kind, content=bytes([i])) for i in range(1, 4)]
    table = TABLES[kind]
    # Past half of what a page holds, so that two fill it; of one letter, which would shrink to nothing if compressed.
    long = FACTS[kind] | {"producer": "x" * (MAX_PAGE_BYTES // 2 + 1)}
    with database.session_scope() as session:
        session.execute(update(table).values(status="ready", inspection=long))
    first = (await client.get(f"/v1/{kind}", headers=writer)).json()
    second = (await client.get(f"/v1/{kind}?cursor={first['next_cursor']}", headers=writer)).json()
    assert [entry["id"] for entry in first["items"]] == [shown[2]["id"], shown[1]["id"]]
    assert ([entry["id"] for entry in second["items"]], second["next_cursor"]) == ([shown[0]["id"]], None)


async def test_a_workspace_sends_no_more_uploads_at_once_than_it_may(
    client: httpx.AsyncClient, app: FastAPI, writer: Headers, stranger: Headers, workspace_id: UUID, kind: str
) -> None:
    uploads: OpenUploads = app.state.open_uploads
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(uploads.counted(workspace_id))
        refused = await client.post(f"/v1/{kind}?name=x", content=b"bytes", headers=writer | OCTETS)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_uploads")
        assert refused.headers["Retry-After"] == "5"
        assert "LATHE_API_OPEN_UPLOADS" in refused.json()["remedy"]
        await upload(client, stranger, kind)
    for _ in range(101):  # each makes room for the next when it is over, refused or not
        await client.post(f"/v1/{kind}?name=x", content=b"", headers=writer | OCTETS)
    await upload(client, writer, kind)


@pytest.mark.parametrize("query", ["status=done", "limit=0", "limit=201", "cursor=!!", "nmae=x"])
async def test_a_list_refuses_what_it_does_not_understand(
    client: httpx.AsyncClient, reader: Headers, kind: str, query: str
) -> None:
    answer = await client.get(f"/v1/{kind}?{query}", headers=reader)
    assert answer.status_code == 422
    assert answer.json()["code"] in ("validation_failed", "invalid_cursor")


@pytest.mark.parametrize(
    "query", ["", "name=", "name=%00", "name=a%0Ab", f"name={'n' * 256}", "name=a&nmae=b"], ids=lambda text: text[:12]
)
async def test_a_name_is_asked_for(
    client: httpx.AsyncClient, writer: Headers, storage: Storage, kind: str, query: str
) -> None:
    answer = await client.post(f"/v1/{kind}?{query}", content=b"bytes", headers=writer | OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert stored(storage) == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        (OCTETS | {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (OCTETS | {"Content-Digest": "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"}, 422, "digest_mismatch"),
        (OCTETS | {"Content-Digest": "sha-256=:AAAA:"}, 422, "digest_mismatch"),
    ],
    ids=["form", "json", "gzip", "other-digest", "short-digest"],
)
async def test_what_cannot_be_read_leaves_nothing(
    client: httpx.AsyncClient, writer: Headers, storage: Storage, kind: str, headers: Headers, status: int, code: str
) -> None:
    answer = await client.post(f"/v1/{kind}?name=x", content=b"bytes", headers=writer | headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert stored(storage) == []


async def test_the_refusal_of_a_type_names_those_accepted(client: httpx.AsyncClient, writer: Headers) -> None:
    answer = await client.post("/v1/models?name=x", content=b"b", headers=writer | {"Content-Type": "text/html"})
    assert "text/html" in answer.json()["detail"]
    assert "`application/octet-stream`, `application/x-tar`" in answer.json()["remedy"]


async def test_a_digest_that_fits_is_accepted(client: httpx.AsyncClient, writer: Headers, kind: str) -> None:
    digest = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    field = {"Content-Digest": f"sha-512=:AAAA:, sha-256=:{digest}:"}
    answer = await client.post(f"/v1/{kind}?name=x", content=b"bytes", headers=writer | OCTETS | field)
    assert answer.status_code == 201


async def test_an_empty_body_is_refused(
    client: httpx.AsyncClient, writer: Headers, storage: Storage, kind: str
) -> None:
    answer = await client.post(f"/v1/{kind}?name=x", content=b"", headers=writer | OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (422, "empty_upload")
    assert stored(storage) == []


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "counted"])
async def test_too_large_an_upload_is_refused(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, storage: Storage, kind: str, announced: bool
) -> None:
    app.state.settings.api = ApiSettings(max_upload_bytes=1000, min_free_bytes=0)

    async def pieces() -> Any:
        for _ in range(11):
            yield bytes(100)

    content = bytes(1100) if announced else pieces()
    answer = await client.post(f"/v1/{kind}?name=x", content=content, headers=writer | OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert stored(storage) == []
    exactly = await client.post(f"/v1/{kind}?name=x", content=bytes(1000), headers=writer | OCTETS)
    assert exactly.status_code == 201


async def test_an_upload_into_the_reserve_is_refused(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, kind: str
) -> None:
    settings = app.state.settings.model_copy(update={"api": ApiSettings(min_free_bytes=1 << 60)})
    app.state.storage = Storage(settings)
    answer = await client.post(f"/v1/{kind}?name=x", content=b"bytes", headers=writer | OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


async def test_what_inspection_found_is_shown(
    client: httpx.AsyncClient, writer: Headers, database: Database, kind: str
) -> None:
    shown = await upload(client, writer, kind)
    settle(database, kind, shown["id"])
    ready = (await client.get(f"/v1/{kind}/{shown['id']}", headers=writer)).json()
    assert ready["status"] == "ready"
    assert {field: ready[field] for field in FACTS[kind]} == FACTS[kind]


async def test_a_worker_is_woken_after_the_commit(
    client: httpx.AsyncClient, writer: Headers, database: Database, settings: Settings, kind: str
) -> None:
    await upload(client, writer, kind)
    assert was_woken(settings, queued_job(database))


def queued_job(database: Database) -> UUID:
    with database.session_scope() as session:
        return session.execute(select(JobRow.id).where(JobRow.state == "queued")).scalar_one()


def was_woken(settings: Settings, job_id: UUID) -> bool:
    url = settings.redis_url.get_secret_value().replace("redis+socket://", "unix://")  # as redis-py spells it
    with redis.Redis.from_url(url) as broker:
        messages = [json.loads(text) for text in broker.lrange("inspect", 0, -1)]
    return any(base64.b64decode(message["body"]).startswith(f'[["{job_id}"]'.encode()) for message in messages)


class StorageThatKeeps(Storage):
    """Storage that takes bytes, and does not answer when some are to go."""

    def delete_sync(self, key: str) -> None:
        raise Unavailable(f"{key} stays.")


async def test_a_second_copy_that_cannot_be_deleted_changes_no_answer(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, database: Database, settings: Settings, kind: str
) -> None:
    first = await upload(client, writer, kind)
    settle(database, kind, first["id"], {"code": "worker_lost", "title": "T", "detail": "D"})
    app.state.storage = StorageThatKeeps(settings)
    again = await upload(client, writer, kind)
    assert (again["id"], again["status"]) == (first["id"], "inspecting")
    assert was_woken(settings, queued_job(database))
    assert collect_garbage(database, Storage(settings), 0) == 1


async def test_an_upload_is_accepted_while_the_broker_is_down(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, settings: Settings, kind: str
) -> None:
    app.state.queue = Queue(settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    assert (await upload(client, writer, kind))["status"] == "inspecting"
