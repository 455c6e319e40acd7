"""What a workspace may take: requests, stored bytes, waiting jobs and inspections, unfinished uploads."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import func, select

from app.access import rates
from app.access.service import set_limits
from app.blobs.mark import KEY
from app.blobs.tables import BlobRow
from app.config import Settings
from app.database import Database
from app.jobs.states import JobKind
from app.main import lifespan_of
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_artifact, add_job
from tests.app.uploads import OCTETS, end_jobs, metadata, settle, upload

Headers = dict[str, str]


def limit(database: Database, workspace: str = "default", **values: int | None) -> None:
    with database.session_scope() as session:
        assert set_limits(session, workspace, dict(values))


@pytest.fixture
def quotas(database: Database, workspace_id: UUID) -> Callable[..., None]:
    """Set limits of the workspace `default`."""
    return lambda **values: limit(database, **values)


@pytest.fixture
async def limited(routed: FastAPI, settings: Settings, database: Database) -> AsyncIterator[Callable[..., Any]]:
    """Makes clients of the API with other limits for all, or with another Redis."""

    @asynccontextmanager
    async def start(redis_url: str | None = None, **limits: int) -> AsyncIterator[httpx.AsyncClient]:
        changes: dict[str, Any] = {"limits": settings.limits.model_copy(update=limits)}
        if redis_url is not None:
            changes["redis_url"] = SecretStr(redis_url)
        async with lifespan_of(settings.model_copy(update=changes))(routed):
            transport = httpx.ASGITransport(routed)
            async with httpx.AsyncClient(transport=transport, base_url="http://lathe") as client:
                yield client

    yield start


async def test_an_answer_tells_what_is_left(limited: Callable[..., Any], reader: Headers) -> None:
    async with limited(requests_per_minute=100) as client:
        answers = [await client.get("/v1/models", headers=reader) for _ in range(3)]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=100;w=60'}
    left = [answer.headers["ratelimit"].split(";")[1] for answer in answers]
    assert left == ["r=99", "r=98", "r=97"]


async def test_beyond_its_requests_a_workspace_is_told_when_to_come_again(
    limited: Callable[..., Any], reader: Headers, writer: Headers, stranger: Headers
) -> None:
    async with limited(requests_per_minute=3) as client:
        for headers in (reader, writer, reader):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        answer = await client.get("/v1/models", headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert "Retry-After" in answer.json()["remedy"]
        # All keys of a workspace share one count, and a workspace has its own; what needs no key is not counted.
        assert (await client.get("/v1/models", headers=writer)).status_code == 429
        assert (await client.get("/v1/models", headers=stranger)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_a_refusal_of_another_kind_counts_and_tells_as_well(limited: Callable[..., Any], reader: Headers) -> None:
    async with limited(requests_per_minute=2) as client:
        refused = await client.post("/v1/jobs", json={}, headers=reader)
        assert (refused.status_code, refused.headers["ratelimit"].split(";")[1]) == (403, "r=1")
        assert (await client.get("/v1/models/none", headers=reader)).status_code == 422
        assert (await client.get("/v1/models/none", headers=reader)).status_code == 429


async def test_a_workspace_may_have_a_limit_of_its_own_or_none(
    limited: Callable[..., Any], quotas: Callable[..., None], reader: Headers
) -> None:
    async with limited(requests_per_minute=1) as client:
        quotas(requests_per_minute=0)
        answers = [await client.get("/v1/models", headers=reader) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert "ratelimit" not in answers[0].headers
        quotas(requests_per_minute=2)
        answers = [await client.get("/v1/models", headers=reader) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        quotas(requests_per_minute=None)
        assert (await client.get("/v1/models", headers=reader)).headers["ratelimit-policy"] == '"requests";q=1;w=60'


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("where", ["nothing listens", "nobody answers"])
async def test_without_redis_each_process_counts_and_the_log_says_so_once(
    limited: Callable[..., Any],
    reader: Headers,
    stranger: Headers,
    black_hole: int,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = 1 if where == "nothing listens" else black_hole
    async with limited(redis_url=f"redis://127.0.0.1:{port}/0", requests_per_minute=3) as client:
        answers = [await client.get("/v1/models", headers=reader) for _ in range(5)]
        other = await client.get("/v1/models", headers=stranger)
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    assert answers[-1].headers["ratelimit"].startswith('"requests";r=0;')
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert other.status_code == 200
    logged = capsys.readouterr()
    assert (logged.out + logged.err).count("requests_counted_per_process") == 1


async def test_a_process_that_was_too_busy_to_hear_redis_lets_nobody_flood_it(
    limited: Callable[..., Any], reader: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with limited(requests_per_minute=3) as client:
        with monkeypatch.context() as busy:
            busy.setattr(rates, "PATIENCE_SECONDS", 0.0)  # as if the event loop had been held all that time
            assert (await client.get("/v1/models", headers=reader)).status_code == 200
        answers = [await client.get("/v1/models", headers=reader) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


async def test_an_upload_beyond_what_a_workspace_may_store_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient,
    writer: Headers,
    stranger: Headers,
    quotas: Callable[..., None],
    database: Database,
    settings: Settings,
) -> None:
    kept = await upload(client, writer, "models", b"x" * 6000)
    quotas(stored_bytes=11_000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"y" * 1000

    before = stored_files(settings)
    for content in (b"y" * 6000, pieces()):  # one that says how many they are, and one that does not
        answer = await client.post("/v1/models?name=y", content=content, headers=writer | OCTETS)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_quota_exceeded")
        assert "11000 bytes" in answer.json()["detail"]
    assert stored_files(settings) == before
    with database.session_scope() as session:
        assert session.scalar(select(func.sum(BlobRow.size_bytes))) == 6000
    # What is stored already, what fits and what is another workspace's goes on.
    assert (await upload(client, writer, "models", b"x" * 6000))["id"] == kept["id"]
    await upload(client, writer, "datasets", b"z" * 5000)
    await upload(client, stranger, "models", b"y" * 6000)


@pytest.mark.parametrize("size_bytes", [2**63, 2**64 - 1])
async def test_a_size_that_no_database_can_hold_is_too_large(
    client: httpx.AsyncClient, writer: Headers, quotas: Callable[..., None], size_bytes: int
) -> None:
    quotas(stored_bytes=11_000)
    said = writer | OCTETS | {"Content-Length": str(size_bytes)}
    answer = await client.post("/v1/models?name=y", content=b"y", headers=said)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    said = writer | {"Tus-Resumable": "1.0.0", "Upload-Length": str(size_bytes)}
    said |= {"Upload-Metadata": metadata(kind="model", name="y")}
    answer = await client.post("/v1/uploads", headers=said)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_small_file_counts_what_it_takes_of_a_disk(
    client: httpx.AsyncClient, writer: Headers, quotas: Callable[..., None]
) -> None:
    quotas(stored_bytes=10_000)
    for content in (b"a", b"b"):
        await upload(client, writer, "models", content)
    answer = await client.post("/v1/models?name=c", content=b"c", headers=writer | OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_quota_exceeded")


async def test_an_upload_that_does_not_say_its_size_is_cut_off_where_room_ends(
    client: httpx.AsyncClient, writer: Headers, quotas: Callable[..., None], settings: Settings
) -> None:
    """Not when all of it lies on the disk that others need."""
    quotas(stored_bytes=1000)
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1000:
            sent += 1
            yield b"y" * 100

    answer = await client.post("/v1/models?name=y", content=pieces(), headers=writer | OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_quota_exceeded")
    assert sent < 1000
    assert stored_files(settings) == []


async def test_uploads_at_once_do_not_pass_together_what_each_alone_would_fit_into(
    client: httpx.AsyncClient, writer: Headers, quotas: Callable[..., None], database: Database
) -> None:
    quotas(stored_bytes=16_000)

    async def send(number: int) -> int:
        content = str(number).encode() * 5000
        return (await client.post(f"/v1/models?name={number}", content=content, headers=writer | OCTETS)).status_code

    statuses = await asyncio.gather(*(send(number) for number in range(9)))
    assert sorted(statuses) == [201] * 3 + [507] * 6
    with database.session_scope() as session:
        assert session.scalar(select(func.sum(BlobRow.size_bytes))) == 15_000


async def test_a_workspace_that_stores_as_much_as_it_may_begins_no_job_until_it_has_made_room(
    client: httpx.AsyncClient,
    writer: Headers,
    quotas: Callable[..., None],
    database: Database,
    storage: Storage,
    workspace_id: UUID,
) -> None:
    model = await upload(client, writer, "models", b"x" * 6000)
    settle(database, "models", model["id"])
    delivered = add_artifact(database, workspace_id, add_job(database, state="succeeded"))  # which takes a block
    quotas(stored_bytes=6000 + 4096 + 1)
    body = {"model_id": model["id"], "recipe": [{"pass": "optimize_graph"}]}
    keyed = writer | {"Idempotency-Key": "one"}
    first = await client.post("/v1/jobs", json=body, headers=keyed)
    assert first.status_code == 202
    quotas(stored_bytes=6000 + 4096)
    refused = await client.post("/v1/jobs", json=body, headers=writer)
    assert (refused.status_code, refused.json()["code"]) == (507, "storage_quota_exceeded")
    assert "lathe delete" in refused.json()["remedy"]
    # The same request again is the job that was accepted before.
    assert (await client.post("/v1/jobs", json=body, headers=keyed)).json()["id"] == first.json()["id"]
    assert (await client.delete(f"/v1/artifacts/{delivered}", headers=writer)).status_code == 204
    assert collect_garbage(database, storage, 0) == 1
    assert (await client.post("/v1/jobs", json=body, headers=writer)).status_code == 202


async def test_a_workspace_has_no_more_jobs_waiting_than_it_may(
    client: httpx.AsyncClient, writer: Headers, quotas: Callable[..., None], database: Database
) -> None:
    model = await upload(client, writer)
    settle(database, "models", model["id"])
    body = {"model_id": model["id"], "recipe": [{"pass": "optimize_graph"}]}
    quotas(queued_jobs=4)
    add_job(database, kind=JobKind.INSPECT_MODEL)  # counts for nothing
    sent = [client.post("/v1/jobs", json=body, headers=writer | {"Idempotency-Key": str(key)}) for key in range(10)]
    answers = await asyncio.gather(*sent)
    taken = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(refused)) == (4, 6)
    assert {answer.json()["code"] for answer in refused} == {"too_many_queued_jobs"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    # The same request again is the same job, and a job that is over makes room.
    key = next(str(number) for number, answer in enumerate(answers) if answer.status_code == 202)
    again = await client.post("/v1/jobs", json=body, headers=writer | {"Idempotency-Key": key})
    assert again.status_code == 202
    await client.post(f"/v1/jobs/{again.json()['id']}/cancel", headers=writer)
    assert (await client.post("/v1/jobs", json=body, headers=writer)).status_code == 202
    assert (await client.post("/v1/jobs", json=body, headers=writer)).status_code == 429


async def test_a_workspace_has_no_more_uploads_waiting_for_inspection_than_it_may(
    limited: Callable[..., Any], writer: Headers, stranger: Headers, database: Database, settings: Settings
) -> None:
    async with limited(queued_inspections=2) as client:

        async def send(content: str, headers: Headers = writer) -> httpx.Response:
            answer: httpx.Response = await client.post("/v1/datasets?name=d", content=content, headers=headers | OCTETS)
            return answer

        answers = await asyncio.gather(*(send(content) for content in "abcde"))
        taken = [content for content, answer in zip("abcde", answers, strict=True) if answer.status_code == 201]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(taken), len(refused)) == (2, 3)
        assert {answer.json()["code"] for answer in refused} == {"too_many_queued_inspections"}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert len(stored_files(settings)) == 2
        # What is there already needs no inspection, another workspace has its own, and what was inspected makes room.
        assert (await send(taken[0])).status_code == 200
        assert (await send("a", stranger)).status_code == 201
        end_jobs(database)
        assert (await send("f")).status_code == 201


async def test_a_workspace_has_no_more_unfinished_uploads_than_it_may(
    limited: Callable[..., Any], writer: Headers, stranger: Headers
) -> None:
    sent = {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": metadata(kind="model", name="net.onnx")}
    async with limited(resumable_uploads=2) as client:

        async def begin(headers: Headers = writer) -> httpx.Response:
            answer: httpx.Response = await client.post("/v1/uploads", headers=headers | sent)
            return answer

        answers = await asyncio.gather(*(begin() for _ in range(5)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(refused), {answer.json()["code"] for answer in refused}) == (3, {"too_many_resumable_uploads"})
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert (await begin(stranger)).status_code == 201
        taken = next(answer.headers["location"] for answer in answers if answer.status_code == 201)
        await client.delete(taken, headers=writer | {"Tus-Resumable": "1.0.0"})
        assert (await begin()).status_code == 201


def stored_files(settings: Settings) -> list[Path]:
    """All but what marks the folder."""
    folder = Path(urlsplit(settings.storage_url).path)
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != KEY)
