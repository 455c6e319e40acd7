"""tus 1.0 (https://tus.io/protocols/resumable-upload), walked by hand."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update

from app.access.tables import WorkspaceRow
from app.config import Settings
from app.database import Database
from app.storage import Storage
from app.uploads import service
from app.uploads.expiry import delete_expired
from app.uploads.protocol import OFFSET_OCTETS
from app.uploads.tables import ResumableUploadRow, UploadPartRow
from tests.app.garbage import collect_garbage
from tests.app.test_problems import problem
from tests.app.uploads import metadata

Headers = dict[str, str]
TUS = {"Tus-Resumable": "1.0.0"}
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
A_MODEL = metadata(kind="model", filename="net.onnx")


async def begin(client: httpx.AsyncClient, headers: Headers, size: int = len(CONTENT), said: str = A_MODEL) -> str:
    """The address of a new upload."""
    sent = headers | TUS | {"Upload-Length": str(size), "Upload-Metadata": said}
    answer = await client.post("/v1/uploads", headers=sent)
    assert answer.status_code == 201, answer.text
    assert answer.headers["upload-offset"] == "0"
    return answer.headers["location"]


async def patch(
    client: httpx.AsyncClient, headers: Headers, address: str, offset: int, content: Any, **more: str
) -> httpx.Response:
    sent = headers | TUS | {"Upload-Offset": str(offset), "Content-Type": OFFSET_OCTETS} | more
    return await client.patch(address, headers=sent, content=content)


async def head(client: httpx.AsyncClient, headers: Headers, address: str) -> httpx.Response:
    return await client.head(address, headers=headers | TUS)


def files(storage: Storage) -> list[str]:
    return [file.key for file in storage.list_sync("uploads")]


def count(database: Database, table: Any) -> int:
    with database.session_scope() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


async def test_what_is_there_can_be_asked(client: httpx.AsyncClient, writer: Headers, settings: Settings) -> None:
    answer = await client.options("/v1/uploads", headers=writer)
    assert answer.status_code == 204
    assert answer.headers["tus-resumable"] == answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,creation-with-upload,checksum,expiration,termination"
    assert answer.headers["tus-max-size"] == str(settings.api.max_upload_bytes)
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"


@pytest.mark.parametrize("version", [{}, {"Tus-Resumable": "0.2.2"}], ids=["none", "another"])
async def test_another_version_is_refused_and_told_which_there_is(
    client: httpx.AsyncClient, writer: Headers, version: Headers
) -> None:
    address = await begin(client, writer)
    sent = version | {"Upload-Length": "1", "Upload-Offset": "0", "Upload-Metadata": A_MODEL}
    for method, where in (("POST", "/v1/uploads"), ("PATCH", address), ("DELETE", address)):
        answer = await client.request(method, where, headers=writer | sent)
        problem(answer, 412, "unsupported_tus_version")
        assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert (await client.head(address, headers=writer | version)).status_code == 412


@pytest.mark.parametrize(
    ("kind", "said", "media_type"),
    [
        ("models", {"kind": "model", "filename": "net.onnx"}, "application/octet-stream"),
        ("models", {"kind": "model", "name": "net", "filetype": "application/x-tar"}, "application/x-tar"),
        ("datasets", {"kind": "dataset", "name": "net", "filename": "no"}, "application/octet-stream"),
    ],
    ids=["model", "tar", "dataset"],
)
async def test_parts_become_what_they_were_sent_for(
    client: httpx.AsyncClient,
    writer: Headers,
    database: Database,
    storage: Storage,
    kind: str,
    said: Headers,
    media_type: str,
) -> None:
    address = await begin(client, writer, said=metadata(**said))
    for start, end in ((0, 1), (1, 5000), (5000, len(CONTENT))):
        stands = await head(client, writer, address)
        assert (stands.headers["upload-offset"], stands.headers["upload-length"]) == (str(start), str(len(CONTENT)))
        assert stands.headers["cache-control"] == "no-store"
        assert stands.headers["upload-metadata"] == metadata(**said)
        assert parsedate_to_datetime(stands.headers["upload-expires"]) > datetime.now(UTC) + timedelta(hours=23)
        assert "upload-result" not in stands.headers
        answer = await patch(client, writer, address, start, CONTENT[start:end])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(end)), answer.text
    stands = await head(client, writer, address)
    assert answer.headers["upload-result"] == stands.headers["upload-result"]
    assert stands.headers["upload-result"].startswith(f"/v1/{kind}/")
    shown = (await client.get(stands.headers["upload-result"], headers=writer)).json()
    assert (shown["sha256"], shown["size_bytes"], shown["status"]) == (SHA256, len(CONTENT), "inspecting")
    assert (shown["media_type"], shown["name"]) == (media_type, said.get("name", "net.onnx"))
    assert files(storage) == []
    assert len(list(storage.list_sync("blobs"))) == 1
    assert count(database, UploadPartRow) == 0


async def test_an_upload_in_parts_and_one_in_one_piece_are_the_same(
    client: httpx.AsyncClient, writer: Headers, storage: Storage
) -> None:
    whole = (await client.post("/v1/models?name=x", content=CONTENT, headers=writer)).json()
    answer = await patch(client, writer, await begin(client, writer), 0, CONTENT)
    assert answer.headers["upload-result"] == f"/v1/models/{whole['id']}"
    assert (len(list(storage.list_sync("blobs"))), files(storage)) == (1, [])


async def test_the_first_bytes_may_come_with_the_beginning(client: httpx.AsyncClient, writer: Headers) -> None:
    sent = (
        writer | TUS | {"Upload-Length": str(len(CONTENT)), "Upload-Metadata": A_MODEL, "Content-Type": OFFSET_OCTETS}
    )
    part = await client.post("/v1/uploads", headers=sent, content=CONTENT[:10])
    assert (part.status_code, part.headers["upload-offset"]) == (201, "10")
    answer = await patch(client, writer, part.headers["location"], 10, CONTENT[10:])
    assert (await client.post("/v1/uploads", headers=sent, content=CONTENT)).headers["upload-result"] == (
        answer.headers["upload-result"]
    )


async def test_a_client_that_can_only_post_says_what_it_means(client: httpx.AsyncClient, writer: Headers) -> None:
    address = await begin(client, writer)
    sent = writer | TUS | {"Upload-Offset": "0", "Content-Type": OFFSET_OCTETS, "X-HTTP-Method-Override": "PATCH"}
    assert (await client.post(address, headers=sent, content=CONTENT)).status_code == 204


@pytest.mark.parametrize("offset", [0, 9, 11, 10**30], ids=["behind", "just-behind", "ahead", "far-ahead"])
async def test_bytes_for_another_offset_are_refused(client: httpx.AsyncClient, writer: Headers, offset: int) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:10])
    answer = await patch(client, writer, address, offset, CONTENT[10:])
    assert "stands at byte 10" in problem(answer, 409, "offset_conflict")["detail"]
    assert (await head(client, writer, address)).headers["upload-offset"] == "10"


async def test_of_two_writers_at_one_offset_one_comes_too_late(client: httpx.AsyncClient, writer: Headers) -> None:
    address = await begin(client, writer)
    first_has_begun, second_is_over = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"not these bytes"
        first_has_begun.set()
        await second_is_over.wait()
        yield b"nor these"

    first = asyncio.create_task(patch(client, writer, address, 0, slow()))
    await first_has_begun.wait()
    assert (await patch(client, writer, address, 0, CONTENT[:100])).status_code == 204
    second_is_over.set()
    problem(await first, 409, "offset_conflict")
    answer = await patch(client, writer, address, 100, CONTENT[100:])
    assert (await client.get(answer.headers["upload-result"], headers=writer)).json()["sha256"] == SHA256


@pytest.mark.parametrize("writers", [2, 8])
async def test_of_many_writers_at_once_one_is_heard(client: httpx.AsyncClient, writer: Headers, writers: int) -> None:
    address = await begin(client, writer)
    bodies = [bytes([number]) * 1000 for number in range(writers)]
    answers = await asyncio.gather(*(patch(client, writer, address, 0, body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * (writers - 1)
    heard = bodies[[answer.status_code for answer in answers].index(204)]
    answer = await patch(client, writer, address, 1000, CONTENT[1000:])
    shown = (await client.get(answer.headers["upload-result"], headers=writer)).json()
    assert shown["sha256"] == hashlib.sha256(heard + CONTENT[1000:]).hexdigest()


async def test_bytes_beyond_as_many_uploads_as_may_be_under_way_are_refused(
    client: httpx.AsyncClient, app: FastAPI, writer: Headers, workspace_id: UUID
) -> None:
    address = await begin(client, writer)
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(app.state.open_uploads.counted(workspace_id))
        problem(await patch(client, writer, address, 0, CONTENT), 429, "too_many_uploads")
    assert (await patch(client, writer, address, 0, CONTENT)).status_code == 204


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_checksum_is_held_against_the_bytes(
    client: httpx.AsyncClient, writer: Headers, storage: Storage, algorithm: str
) -> None:
    address = await begin(client, writer)
    said = f"{algorithm} {base64.b64encode(hashlib.new(algorithm, CONTENT).digest()).decode()}"
    answer = await patch(client, writer, address, 0, CONTENT[:-1] + b"!", **{"Upload-Checksum": said})
    problem(answer, 460, "checksum_mismatch")
    assert (await head(client, writer, address)).headers["upload-offset"] == "0"
    assert files(storage) == []
    answer = await patch(client, writer, address, 0, CONTENT, **{"Upload-Checksum": said})
    assert answer.headers["upload-offset"] == str(len(CONTENT))


@pytest.mark.parametrize("said", ["crc32 AAAA", "sha1 AAAA", "sha1 ?", "sha1", ""])
async def test_a_checksum_that_cannot_be_read_is_refused(client: httpx.AsyncClient, writer: Headers, said: str) -> None:
    answer = await patch(client, writer, await begin(client, writer), 0, CONTENT, **{"Upload-Checksum": said})
    problem(answer, 400, "unsupported_checksum")


async def test_bytes_are_sent_under_their_own_type(client: httpx.AsyncClient, writer: Headers) -> None:
    address = await begin(client, writer)
    answer = await patch(client, writer, address, 0, CONTENT, **{"Content-Type": "application/octet-stream"})
    assert OFFSET_OCTETS in problem(answer, 415, "unsupported_media_type")["remedy"]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "counted"])
async def test_more_bytes_than_were_said_are_refused(
    client: httpx.AsyncClient, writer: Headers, announced: bool
) -> None:
    address = await begin(client, writer, size=100)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(100)
        yield b"1"

    problem(await patch(client, writer, address, 0, bytes(101) if announced else pieces()), 413, "upload_overrun")
    stands = await head(client, writer, address)
    assert (stands.headers["upload-offset"], "upload-result" in stands.headers) == ("0", False)


async def test_an_upload_in_too_many_pieces_has_to_become_whole_with_the_next(
    client: httpx.AsyncClient,
    writer: Headers,
    database: Database,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "MOST_PARTS", 3)
    address = await begin(client, writer)
    for offset in range(3):
        assert (await patch(client, writer, address, offset, CONTENT[offset : offset + 1])).status_code == 204
    refused = problem(await patch(client, writer, address, 3, CONTENT[3:4]), 422, "too_many_parts")
    assert "Upload-Checksum" in refused["remedy"]
    assert (await head(client, writer, address)).headers["upload-offset"] == "3"
    assert (count(database, UploadPartRow), len(files(storage))) == (3, 3)
    digest = base64.b64encode(hashlib.sha256(CONTENT[3:]).digest()).decode()
    last = await patch(client, writer, address, 3, CONTENT[3:], **{"Upload-Checksum": f"sha256 {digest}"})
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(CONTENT)))


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("", "`kind`"),
        (metadata(kind="poem", name="x"), "`poem`"),
        (metadata(kind="model"), "name"),
        (metadata(kind="model", name="a\nb"), "name"),
        (metadata(kind="model", name="x" * 256), "256"),
        ("kind ?,name eA==", "`kind`"),
        (f"{A_MODEL},filename eA==", "twice"),
    ],
    ids=["none", "unknown-kind", "no-name", "control-characters", "long-name", "no-base64", "twice"],
)
async def test_metadata_that_says_too_little_is_refused(
    client: httpx.AsyncClient, writer: Headers, said: str, names: str
) -> None:
    answer = await client.post("/v1/uploads", headers=writer | TUS | {"Upload-Length": "1", "Upload-Metadata": said})
    assert names in problem(answer, 422, "invalid_upload_metadata")["detail"]


@pytest.mark.parametrize(
    ("length", "said", "status", "code"),
    [
        ("0", A_MODEL, 422, "empty_upload"),
        ("-1", A_MODEL, 422, "validation_failed"),
        (None, A_MODEL, 422, "validation_failed"),
        (str(17 << 30), A_MODEL, 413, "too_large"),
        ("9" * 30, A_MODEL, 413, "too_large"),
        ("5", metadata(kind="model", name="x", filetype="image/png"), 415, "unsupported_media_type"),
    ],
    ids=["empty", "negative", "no-length", "too-large", "beyond-numbers", "another-type"],
)
async def test_what_an_ordinary_upload_could_not_be_is_refused_at_once(
    client: httpx.AsyncClient, writer: Headers, length: str | None, said: str, status: int, code: str
) -> None:
    sent = {"Upload-Metadata": said} | ({} if length is None else {"Upload-Length": length})
    problem(await client.post("/v1/uploads", headers=writer | TUS | sent), status, code)


async def test_an_upload_that_is_given_up_is_gone_and_so_are_its_bytes(
    client: httpx.AsyncClient, writer: Headers, storage: Storage
) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:10])
    assert len(files(storage)) == 1
    assert (await client.delete(address, headers=writer | TUS)).status_code == 204
    assert files(storage) == []
    assert (await head(client, writer, address)).status_code == 404
    problem(await patch(client, writer, address, 10, CONTENT[10:]), 404, "not_found")
    problem(await client.delete(address, headers=writer | TUS), 404, "not_found")


async def test_what_an_upload_became_outlives_it(client: httpx.AsyncClient, writer: Headers) -> None:
    address = await begin(client, writer)
    result = (await patch(client, writer, address, 0, CONTENT)).headers["upload-result"]
    assert (await client.delete(address, headers=writer | TUS)).status_code == 204
    assert (await client.get(result, headers=writer)).status_code == 200


async def test_an_upload_that_nobody_goes_on_with_expires(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    address, kept = await begin(client, writer), await begin(client, writer)
    for one in (address, kept):
        await patch(client, writer, one, 0, CONTENT[:10])
    with database.session_scope() as session:
        mine = update(ResumableUploadRow).where(ResumableUploadRow.id == address.rpartition("/")[2])
        session.execute(mine.values(expires_at=func.now()))
    assert (await head(client, writer, address)).status_code == 410
    problem(await patch(client, writer, address, 10, CONTENT[10:]), 410, "upload_expired")
    assert delete_expired(database, storage) == 1
    assert (await head(client, writer, address)).status_code == 404
    assert len(files(storage)) == 1
    assert (await patch(client, writer, kept, 10, CONTENT[10:])).status_code == 204


async def test_the_collector_takes_parts_without_a_row_and_no_others(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    address = await begin(client, writer)
    await patch(client, writer, address, 0, CONTENT[:10])
    with database.session_scope() as session:
        [kept] = session.scalars(select(UploadPartRow.file_id))

    async def bytes_of_nobody() -> AsyncIterator[bytes]:
        yield b"bytes"

    await storage.write("uploads/0190b0b0-0000-7000-8000-000000000000", bytes_of_nobody())
    assert collect_garbage(database, storage, grace_seconds=0) == 1
    assert files(storage) == [f"uploads/{kept}"]


async def test_parts_count_as_stored_bytes(
    client: httpx.AsyncClient, writer: Headers, database: Database, storage: Storage
) -> None:
    addresses = [await begin(client, writer, size=10_000) for _ in range(2)]
    with database.session_scope() as session:
        session.execute(update(WorkspaceRow).values(stored_bytes=15_000))
    assert (await patch(client, writer, addresses[0], 0, bytes(9000))).status_code == 204
    problem(await patch(client, writer, addresses[1], 0, bytes(9000)), 507, "storage_quota_exceeded")
    assert len(files(storage)) == 1
    answer = await patch(client, writer, addresses[0], 9000, b"x" * 1000)
    assert (await client.get(answer.headers["upload-result"], headers=writer)).json()["size_bytes"] == 10_000
