"""Downloads: ETag, conditions, ranges, names that cannot hurt."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.blobs.content import disposition
from tests.app.uploads import upload

Headers = dict[str, str]
CONTENT = bytes(range(256)) * 4
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


@pytest.fixture
async def address(client: httpx.AsyncClient, writer: Headers) -> str:
    shown = await upload(client, writer, content=CONTENT, name="digits")
    return f"/v1/models/{shown['id']}/content"


async def test_the_whole_content(client: httpx.AsyncClient, reader: Headers, address: str) -> None:
    answer = await client.get(address, headers=reader)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == ETAG
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == "1024"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="digits.onnx"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert answer.headers["content-digest"] == f"sha-256=:{digest}:"


@dataclass(frozen=True)
class RangeCase:
    asked: str
    status: int
    expected: bytes = b""
    content_range: str | None = None


RANGES = {
    "first": RangeCase("bytes=0-9", 206, CONTENT[:10], "bytes 0-9/1024"),
    "one": RangeCase("bytes=5-5", 206, CONTENT[5:6], "bytes 5-5/1024"),
    "open": RangeCase("bytes=1000-", 206, CONTENT[1000:], "bytes 1000-1023/1024"),
    "past-the-end": RangeCase("bytes=1000-5000", 206, CONTENT[1000:], "bytes 1000-1023/1024"),
    "last": RangeCase("bytes=-24", 206, CONTENT[-24:], "bytes 1000-1023/1024"),
    "more-than-all": RangeCase("bytes=-5000", 206, CONTENT, "bytes 0-1023/1024"),
    "outside": RangeCase("bytes=1024-", 416, content_range="bytes */1024"),
    "none-of-the-end": RangeCase("bytes=-0", 416, content_range="bytes */1024"),
    "backwards": RangeCase("bytes=9-3", 200, CONTENT),
    "several": RangeCase("bytes=0-1,4-5", 200, CONTENT),
    "another-unit": RangeCase("lines=0-1", 200, CONTENT),
    "nonsense": RangeCase("bytes=a-b", 200, CONTENT),
    "nothing": RangeCase("bytes=-", 200, CONTENT),
}


@pytest.mark.parametrize("case", RANGES.values(), ids=RANGES)
async def test_a_range(client: httpx.AsyncClient, reader: Headers, address: str, case: RangeCase) -> None:
    answer = await client.get(address, headers=reader | {"Range": case.asked})
    assert answer.status_code == case.status
    assert answer.headers.get("content-range") == case.content_range
    if case.status == 416:
        assert answer.json()["code"] == "range_not_satisfiable"
    else:
        assert answer.content == case.expected
        assert answer.headers["content-length"] == str(len(case.expected))
        assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Tue, 24 Nov 2026 00:00:00 GMT", 200)],
    ids=["same", "other", "weak", "date"],
)
async def test_a_range_only_of_the_same_content(
    client: httpx.AsyncClient, reader: Headers, address: str, condition: str, status: int
) -> None:
    answer = await client.get(address, headers=reader | {"Range": "bytes=0-9", "If-Range": condition})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 304), (f'"x", W/{ETAG}', 304), ("*", 304), ('"x"', 200)],
    ids=["same", "listed", "any", "other"],
)
async def test_content_that_is_known_is_not_sent_again(
    client: httpx.AsyncClient, reader: Headers, address: str, condition: str, status: int
) -> None:
    answer = await client.get(address, headers=reader | {"If-None-Match": condition})
    assert answer.status_code == status
    assert answer.headers["etag"] == ETAG
    assert answer.content == (b"" if status == 304 else CONTENT)


async def test_head_says_what_get_would(client: httpx.AsyncClient, reader: Headers, address: str) -> None:
    whole = await client.head(address, headers=reader)
    assert (whole.status_code, whole.headers["content-length"], whole.content) == (200, "1024", b"")
    part = await client.head(address, headers=reader | {"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (206, "10")


async def test_bytes_that_storage_lost_are_a_fault_of_ours(
    client: httpx.AsyncClient, reader: Headers, address: str, storage: Any
) -> None:
    for file in list(storage.list_sync("blobs")):
        storage.delete_sync(file.key)
    answer = await client.get(address, headers=reader)
    assert (answer.status_code, answer.json()["code"]) == (500, "content_missing")


NAMES = {
    "plain": ("model.onnx", 'attachment; filename="model.onnx"'),
    "folders": ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
    "header": ('a"\r\nX-Evil: 1', "attachment; filename=\"a___X-Evil_ 1\"; filename*=UTF-8''a%22__X-Evil%3A%201"),
    "foreign": ("modèle.onnx", "attachment; filename=\"mod_le.onnx\"; filename*=UTF-8''mod%C3%A8le.onnx"),
    "dots": ("...", 'attachment; filename="download"'),
}


@pytest.mark.parametrize(("name", "field"), NAMES.values(), ids=NAMES)
def test_a_file_name_is_only_a_name(name: str, field: str) -> None:
    assert disposition(name) == field
