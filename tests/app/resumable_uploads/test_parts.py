"""A body that comes slowly is stored on the way, not only when it ends."""

import base64
import hashlib
from collections.abc import AsyncIterator

import pytest

from app.blobs import receiving
from app.storage import Storage
from app.uploads.parts import Body, joined
from app.uploads.protocol import read_checksum

PIECES = (b"one", b"two", b"three")


async def arriving() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


async def test_a_part_ends_when_its_time_is_over(storage: Storage) -> None:
    body, parts = Body(arriving(), part_seconds=0), []
    while await body.has_more():
        start = parts[-1].end_bytes if parts else 0
        parts.append(await body.store_part(storage, start, 100, None))
    assert [(part.start_bytes, part.size_bytes) for part in parts] == [(0, 3), (3, 3), (6, 5)]
    assert b"".join([chunk async for chunk in joined(storage, parts)]) == b"".join(PIECES)


async def test_what_comes_slowly_is_not_kept_in_the_pieces_in_which_it_comes(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "JOINING_SECONDS", 0.0)
    chunks: list[bytes] = []

    async def write(_: str, handed_on: AsyncIterator[bytes]) -> None:
        chunks.extend([chunk async for chunk in handed_on])

    monkeypatch.setattr(storage, "write", write)
    await Body(arriving()).store_part(storage, 0, 100, None)
    assert chunks == list(PIECES)


async def test_a_body_with_a_checksum_is_one_part_however_long_it_takes(storage: Storage) -> None:
    sha1 = base64.b64encode(hashlib.sha1(b"".join(PIECES), usedforsecurity=False).digest()).decode()
    part = await Body(arriving(), part_seconds=0).store_part(storage, 0, 100, read_checksum(f"sha1 {sha1}"))
    assert part.size_bytes == 11
