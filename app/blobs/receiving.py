"""A request's body into storage: streamed, hashed and counted on the way, in memory that does not grow with it."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect
from uuid_utils.compat import uuid7

from app.blobs import quota
from app.blobs.pace import steady
from app.blobs.tables import storage_key
from app.config import ApiSettings
from app.errors import LatheError, TooLarge, Unprocessable, UnsupportedMediaType
from app.storage import CHUNK_BYTES, Storage

if TYPE_CHECKING:
    from hashlib import _Hash

# What comes slowly is handed on after so long: the many small pieces in which it comes take far more than their bytes.
JOINING_SECONDS = 5.0
DIGEST_FIELD = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):", re.IGNORECASE)  # Content-Digest, RFC 9530
LEGACY_DIGEST_FIELD = re.compile(r"(?:^|,)\s*sha-256=([A-Za-z0-9+/=]+)", re.IGNORECASE)  # Digest, RFC 3230


class EmptyUpload(Unprocessable):
    code, title = "empty_upload", "The upload holds no bytes"


class DigestMismatch(Unprocessable):
    code, title = "digest_mismatch", "The bytes are not those that the digest names"


class IncompleteUpload(LatheError):
    status, code, title = 400, "incomplete_upload", "The upload broke off"


@dataclass(frozen=True)
class Received:
    """Bytes in storage that no row knows yet."""

    workspace_id: UUID
    blob_id: UUID
    sha256: bytes
    size_bytes: int

    @property
    def storage_key(self) -> str:
        return storage_key(self.workspace_id, self.blob_id)


class _Meter:
    """Counts a stream on its way, and hashes it. The hash of a chunk runs in a thread while the next one arrives."""

    def __init__(self, storage: Storage, max_bytes: int, hash_: "_Hash | None", verify: Callable[[int], None]) -> None:
        self._storage = storage
        self._max_bytes = max_bytes
        self._hash = hash_
        self._verify = verify
        self.size_bytes = 0

    async def through(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        hashing: asyncio.Future[None] | None = None
        try:
            async for chunk in self._joined(pieces):
                if hashing is not None:
                    await hashing
                if self._hash is not None:
                    hashing = asyncio.ensure_future(asyncio.to_thread(self._hash.update, chunk))
                yield chunk
        finally:
            if hashing is not None:
                await hashing
        self._verify(self.size_bytes)

    async def _joined(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The server hands over some 64 KiB at a time; storage and the hash want megabytes."""
        clock = asyncio.get_running_loop().time
        waiting: list[bytes] = []
        waiting_bytes, end = 0, clock() + JOINING_SECONDS
        async for piece in pieces:
            waiting.append(piece)
            waiting_bytes += len(piece)
            self.size_bytes += len(piece)
            if self.size_bytes > self._max_bytes:
                raise too_large(self._max_bytes)
            if waiting_bytes >= CHUNK_BYTES or clock() >= end:
                self._storage.ensure_room(waiting_bytes)
                yield b"".join(waiting)
                waiting, waiting_bytes, end = [], 0, clock() + JOINING_SECONDS
        if waiting_bytes:
            yield b"".join(waiting)


async def receive(
    request: Request, storage: Storage, workspace_id: UUID, api: ApiSettings, room: int | None = None
) -> Received:
    """Store the request's body, of at most `room` bytes, under a key of its own. Whatever this raises, nothing is left.

    Raises UnsupportedMediaType, StorageQuotaExceeded, and what `body_of` and `take_in` raise.
    """
    return await take_in(
        quota.within(body_of(request, api), room),
        storage,
        workspace_id,
        max_bytes=api.max_upload_bytes,
        expected_bytes=content_length(request),
        digest=_expected_digest(request),
    )


async def body_of(request: Request, api: ApiSettings) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises UnsupportedMediaType for one that is encoded, IncompleteUpload where the client leaves, TooSlow where it may
    as well have left.
    """
    _refuse_encoded(request)
    arrived_bytes = 0
    try:
        async for piece in steady(request.stream(), api):
            arrived_bytes += len(piece)
            yield piece
    except ClientDisconnect as error:
        raise IncompleteUpload(f"The client left after {arrived_bytes} bytes.") from error


async def take_in(
    pieces: AsyncIterator[bytes],
    storage: Storage,
    workspace_id: UUID,
    *,
    max_bytes: int,
    expected_bytes: int | None,
    digest: bytes | None = None,
) -> Received:
    """Store what a user uploads, wherever its bytes come from. Whatever this raises, nothing is left behind.

    Raises TooLarge, StorageFull, EmptyUpload, IncompleteUpload, DigestMismatch, Unavailable, and what `pieces` raises.
    """
    if expected_bytes is not None and expected_bytes > max_bytes:
        raise too_large(max_bytes)
    storage.ensure_room(expected_bytes or 0)
    sha256 = hashlib.sha256()

    def verify(size_bytes: int) -> None:
        if expected_bytes is not None and size_bytes != expected_bytes:
            raise IncompleteUpload(f"{size_bytes} of {expected_bytes} bytes arrived.")
        refuse_empty(size_bytes)
        if digest is not None and not hmac.compare_digest(digest, sha256.digest()):
            raise DigestMismatch(
                f"The {size_bytes} bytes that arrived have the SHA-256 {sha256.hexdigest()}.",
                remedy="Send the file again.",
            )

    blob_id = uuid7()
    key = storage_key(workspace_id, blob_id)
    size_bytes = await _store(pieces, storage, key, _Meter(storage, max_bytes, sha256, verify))
    return Received(workspace_id, blob_id, sha256.digest(), size_bytes)


async def store_part(
    pieces: AsyncIterator[bytes],
    storage: Storage,
    key: str,
    *,
    max_bytes: int,
    hash_: "_Hash | None",
    verify: Callable[[int], None],
) -> int:
    """Store some of what a user uploads, and return how many bytes; `hash_` sees all of them.

    `verify` has the last word, when all have come, and is told their number. Whatever this raises, nothing is left.
    Raises StorageFull, Unavailable, and what `pieces` and `verify` raise.
    """
    return await _store(pieces, storage, key, _Meter(storage, max_bytes, hash_, verify))


async def _store(pieces: AsyncIterator[bytes], storage: Storage, key: str, meter: _Meter) -> int:
    try:
        await storage.write(key, meter.through(pieces))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await storage.delete(key)
        raise
    return meter.size_bytes


def refuse_empty(size_bytes: int) -> None:
    """Raises EmptyUpload."""
    if size_bytes == 0:
        raise EmptyUpload("The body is empty.", remedy="Send the file as the body: `curl --data-binary @file`.")


def too_large(max_bytes: int) -> TooLarge:
    """The refusal of an upload of more bytes than that."""
    return TooLarge(f"The upload is larger than {max_bytes} bytes.", remedy="LATHE_API_MAX_UPLOAD_BYTES sets the most.")


def content_length(request: Request) -> int | None:
    """What the request says of its body's size, if it says a number."""
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _refuse_encoded(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"The body has the content encoding `{encoding[:100]}`.", remedy="Send the file as it is, uncompressed."
        )


def _expected_digest(request: Request) -> bytes | None:
    """The SHA-256 that the client says, if it says one; other algorithms are passed over, as RFC 9530 has it."""
    found = DIGEST_FIELD.search(request.headers.get("content-digest", "")) or LEGACY_DIGEST_FIELD.search(
        request.headers.get("digest", "")
    )
    if found is None:
        return None
    try:
        digest = base64.b64decode(found[1], validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise DigestMismatch(
            "The digest sent is not the base64 of 32 bytes.", remedy="`Content-Digest: sha-256=:<base64>:` (RFC 9530)."
        )
    return digest
