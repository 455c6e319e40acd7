"""Blobs, through obstore: a local folder, or an S3-compatible bucket.

The API writes and reads asynchronously, the worker synchronously; both faces stream. A key appears when all of its
bytes are there, and never before. Errors of the store arrive as the API's own: StorageFull where there is no room,
ContentMissing where a key holds nothing, Unavailable for the rest.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store

from app.config import Settings
from app.errors import LatheError, OurFault, StorageFull, Unavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CHUNK_BYTES = 4 << 20
# Of an answer, each of whose readers holds one.
SENT_CHUNK_BYTES = 256 << 10
PART_BYTES = 8 << 20  # of a multipart upload: S3 takes 10,000, so 80 GiB
PARTS_AT_ONCE = 2  # what bounds the memory of one upload
RETRY: "RetryConfig" = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}  # of one request to a bucket
# Of the files that a local file system has room for, so many are left to others; not all file systems count them.
MIN_FREE_FILES = 1000
# Of a bucket. It begins anew with each read of an answer; a part that is sent has as long, its answer included.
SILENCE = timedelta(seconds=120)
NO_ROOM = re.compile(r"os error (28|122)\b|No space left|Disk quota exceeded|XMinioStorageFull|QuotaExceeded")


class ContentMissing(LatheError):
    status, code, title = 500, OurFault.CONTENT_MISSING, "The stored bytes are gone"


@dataclass(frozen=True)
class StoredFile:
    """One file in storage, as the collector sees it."""

    key: str
    size_bytes: int
    modified_at: datetime


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Within, what the store or the file system raises becomes StorageFull, ContentMissing or Unavailable."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise ContentMissing(f"`{key}` is not in storage.") from error
    except (BaseError, OSError) as error:
        if NO_ROOM.search(str(error)) or getattr(error, "errno", None) in (28, 122):
            raise StorageFull("There is no room left in storage.", remedy="Free some space, then try again.") from error
        raise Unavailable("Storage does not answer.", "Try again in a moment.", {"Retry-After": "5"}) from error


def open_store(url: str) -> tuple[ObjectStore, Path | None]:
    """The store that STORAGE_URL names, and its folder where it is a local one.

    Raises ValueError for another scheme than `file` and `s3`.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        root = Path(unquote(parts.path))
        root.mkdir(parents=True, exist_ok=True)
        return LocalStore(root), root
    if parts.scheme == "s3" and parts.netloc:
        # Credentials, region and endpoint come from AWS_*. A large file takes longer than the client's usual 30 s.
        client: ClientConfig = {"timeout": "1h", "connect_timeout": "5s", "read_timeout": SILENCE}
        if os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://"):
            client["allow_http"] = True
        prefix = parts.path.strip("/")
        return S3Store(parts.netloc, prefix=prefix or None, client_options=client, retry_config=RETRY), None
    raise ValueError(f"STORAGE_URL must be file:///folder or s3://bucket/prefix, not {parts.scheme}://...")


class Storage:
    """Where blobs are kept."""

    def __init__(self, settings: Settings) -> None:
        self._store, self._root = open_store(settings.storage_url)
        self._min_free_bytes = settings.api.min_free_bytes

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store a stream. When this returns the bytes are durable; when it raises there is nothing under the key."""
        with translated(key):
            await obstore.put_async(
                self._store, key, chunks, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE, use_multipart=True
            )
            if self._root is not None:
                await anyio.to_thread.run_sync(_make_durable, self._root, key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`, exclusive, as a stream. Raises ContentMissing before the first."""
        with translated(key):
            result = await obstore.get_async(self._store, key, options={"range": (start, end)})
        return _chunks(key, result)

    async def holds(self, key: str, size_bytes: int) -> bool:
        """As `holds_sync`."""
        return await anyio.to_thread.run_sync(self.holds_sync, key, size_bytes)

    async def delete(self, key: str) -> None:
        await anyio.to_thread.run_sync(self.delete_sync, key)

    async def note(self, key: str) -> bytes | None:
        """A few bytes as a whole; None where there are none."""
        with suppress(ContentMissing), translated(key):
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
        return None

    async def add_note(self, key: str, content: bytes) -> None:
        """Store a few bytes, where nothing is under the key."""
        with translated(key), suppress(AlreadyExistsError):
            await obstore.put_async(self._store, key, content, mode="create", use_multipart=False)
            if self._root is not None:
                await anyio.to_thread.run_sync(_make_durable, self._root, key)

    async def ping(self) -> str:
        """What is there to say of a store that answers. Raises Unavailable or StorageFull where it is of no use."""
        if self._root is not None:
            return await anyio.to_thread.run_sync(self._ping_local)
        with translated("the bucket"):
            await obstore.list_with_delimiter_async(self._store, "ping")
        return "the bucket answers"

    def ensure_room(self, size_bytes: int) -> None:
        """Raises StorageFull where so many bytes more, or one file, would eat into the reserve.

        A bucket knows no such thing.
        """
        if self._root is None:
            return
        files = os.statvfs(self._root)
        if files.f_files and files.f_favail <= MIN_FREE_FILES:
            raise StorageFull(
                f"The file system has room for {files.f_favail:,} more files, where {MIN_FREE_FILES:,} are a reserve.",
                remedy="Delete files that are not needed, then try again.",
            )
        free = shutil.disk_usage(self._root).free
        if free < self._min_free_bytes + size_bytes:
            raise StorageFull(
                f"{free:,} bytes are free, where {self._min_free_bytes:,} are a reserve: "
                + (f"{size_bytes:,} more do not fit." if size_bytes else "nothing more fits."),
                remedy="Free some space, then try again.",
            )

    def fetch(self, key: str, path: Path, going_on: Callable[[], None] = lambda: None) -> None:
        """Copy stored bytes into a file; between chunks `going_on` may raise. Raises ContentMissing."""
        with translated(key):
            stream = obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES)
            with path.open("wb") as file:
                for chunk in stream:
                    going_on()
                    file.write(chunk)

    def store(self, path: Path, key: str) -> None:
        """Copy a file into storage; durable when this returns. Raises StorageFull, Unavailable."""
        self.ensure_room(path.stat().st_size)
        with translated(key):
            obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
            if self._root is not None:
                _make_durable(self._root, key)

    def note_sync(self, key: str) -> bytes | None:
        """As `note`."""
        with suppress(ContentMissing), translated(key):
            return bytes(obstore.get(self._store, key).bytes())
        return None

    def put_note_sync(self, key: str, content: bytes) -> None:
        """Store a few bytes, whatever is under the key."""
        with translated(key):
            obstore.put(self._store, key, content, use_multipart=False)
            if self._root is not None:
                _make_durable(self._root, key)

    def holds_sync(self, key: str, size_bytes: int) -> bool:
        """Whether a key is there, with so many bytes under it."""
        try:
            with translated(key):
                return obstore.head(self._store, key)["size"] == size_bytes
        except ContentMissing:
            return False

    def delete_sync(self, key: str) -> None:
        """Remove a key; nothing happens where it is gone already."""
        with suppress(ContentMissing), translated(key):
            # obstore knows nothing of the `#1` that a killed process leaves behind; the file system does.
            if self._root is not None:
                (self._root / key).unlink(missing_ok=True)
            else:
                obstore.delete(self._store, key)

    def list_sync(self, prefix: str) -> Iterator[StoredFile]:
        """Every file under a prefix; of a local folder also what an interrupted write left there."""
        if self._root is not None:
            yield from _walk(self._root, prefix)
            return
        with translated(prefix):
            for page in obstore.list(self._store, prefix):
                for meta in page:
                    yield StoredFile(meta["path"], meta["size"], meta["last_modified"])

    def _ping_local(self) -> str:
        root = self._root or Path()
        if not os.access(root, os.W_OK | os.X_OK):
            raise Unavailable(f"The storage folder {root.name} cannot be written.")
        self.ensure_room(0)
        return f"{shutil.disk_usage(root).free >> 20} MiB free"


async def _chunks(key: str, result: Any) -> AsyncIterator[bytes]:
    with translated(key):
        async for chunk in result.stream(min_chunk_size=SENT_CHUNK_BYTES):
            yield bytes(chunk)


def _make_durable(root: Path, key: str) -> None:
    """fsync(2) a file and every folder down to it: obstore renames into place and leaves the rest to chance."""
    path = root / key
    for place in (path, *path.parents):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if place == root:
            break


def _walk(root: Path, prefix: str) -> Iterator[StoredFile]:
    for folder, _, names in os.walk(root / prefix):
        for name in names:
            path = Path(folder) / name
            with suppress(FileNotFoundError):
                status = path.stat()
                modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                yield StoredFile(path.relative_to(root).as_posix(), status.st_size, modified_at)
