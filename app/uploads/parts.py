"""The body of a request in parts, each of which is stored as a file of its own."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from app.blobs import receiving
from app.blobs.receiving import IncompleteUpload
from app.errors import LatheError, TooSlow
from app.storage import Storage
from app.uploads.protocol import Checksum
from app.uploads.tables import UploadPartRow, part_key

PART_BYTES = 64 << 20
PART_SECONDS = 30.0
"""A part ends after so many bytes or seconds: what is lost at most where the API itself is killed."""


@dataclass(frozen=True)
class Part:
    """Bytes in storage, and where they belong in the upload."""

    start_bytes: int
    size_bytes: int
    file_id: UUID

    @property
    def end_bytes(self) -> int:
        return self.start_bytes + self.size_bytes

    @property
    def key(self) -> str:
        return part_key(self.file_id)

    def row(self, upload_id: UUID) -> UploadPartRow:
        return UploadPartRow(
            upload_id=upload_id, start_bytes=self.start_bytes, size_bytes=self.size_bytes, file_id=self.file_id
        )


class Body:
    """A body that is taken in pieces. Where it breaks off, what came before is good; `fault` says why it broke off."""

    def __init__(self, pieces: AsyncIterator[bytes], part_seconds: float = PART_SECONDS) -> None:
        self._pieces = pieces
        self._part_seconds = part_seconds
        self._next = b""
        self.fault: LatheError | None = None

    async def has_more(self) -> bool:
        """Whether another byte comes."""
        while not self._next and self.fault is None:
            try:
                piece = await anext(self._pieces, None)
            except (IncompleteUpload, TooSlow) as fault:
                self.fault = fault
                break
            if piece is None:
                break
            self._next = piece
        return bool(self._next)

    async def take(self, most_bytes: int, seconds: float) -> AsyncIterator[bytes]:
        """What comes next, up to so many bytes, and for so long; one piece at least."""
        clock = asyncio.get_running_loop().time
        left, end = most_bytes, clock() + seconds
        while left and await self.has_more():
            piece, self._next = self._next[:left], self._next[left:]
            left -= len(piece)
            yield piece
            if clock() >= end:
                return

    async def store_part(self, storage: Storage, start_bytes: int, room_bytes: int, checksum: Checksum | None) -> Part:
        """Store what comes next as one part: durable when this returns, and nothing is left where it raises.

        `room_bytes` is what the upload lacks. A body with a checksum is one part: none of it counts before all of it is
        verified. Raises ChecksumMismatch, StorageFull, Unavailable, and `fault` where there is one beside a checksum.
        """
        file_id = uuid7()
        most_bytes = room_bytes if checksum else min(PART_BYTES, room_bytes)
        seconds = math.inf if checksum else self._part_seconds

        def verify(_: int) -> None:
            if checksum is None:
                return
            if self.fault is not None:
                raise self.fault
            checksum.verify()

        size_bytes = await receiving.store_part(
            self.take(most_bytes, seconds),
            storage,
            part_key(file_id),
            max_bytes=most_bytes,
            hash_=checksum.hash if checksum else None,
            verify=verify,
        )
        return Part(start_bytes, size_bytes, file_id)


async def joined(storage: Storage, parts: list[Part]) -> AsyncIterator[bytes]:
    """The bytes of parts that follow each other. Raises ContentMissing, Unavailable."""
    for part in parts:
        async for chunk in await storage.read(part.key, 0, part.size_bytes):
            yield chunk
