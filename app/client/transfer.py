"""Bytes both ways: uploads that stream, downloads that resume and are verified before they appear."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import httpx

from app.client.errors import DownloadCorrupt, ServiceUnreachable
from app.client.transport import Transport

CHUNK_BYTES = 1 << 20
TAR_MAGIC = b"ustar"
TAR_MAGIC_OFFSET = 257

Progress = Callable[[int, int], None]
"""Called with the bytes done so far and the bytes in all."""


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a POSIX tar archive; 262 bytes tell."""
    return head[TAR_MAGIC_OFFSET : TAR_MAGIC_OFFSET + len(TAR_MAGIC)] == TAR_MAGIC


def source_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file to upload, which is read several times. Raises OSError where it is a pipe or a device."""
    source = Path(path)
    if source.exists() and not source.is_file():
        raise OSError(errno.EINVAL, "is no regular file: save it as one, and upload that", str(source))
    return source


def model_media_type(source: Path | bytes) -> str:
    """By content, for file names lie."""
    if isinstance(source, bytes):
        head = source[:512]
    else:
        with source.open("rb") as file:
            head = file.read(512)
    return "application/x-tar" if is_tar(head) else "application/octet-stream"


def size_of(source: Path | bytes) -> int:
    """In bytes. Raises OSError."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def chunks(
    source: Path | bytes, on_progress: Progress | None, *, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """The bytes from `start` up to `end` in pieces, so that memory does not grow with the file."""
    total = size_of(source)
    done = start
    for chunk in _pieces(source, start, total if end is None else end):
        yield chunk
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, total)


def _pieces(source: Path | bytes, start: int, end: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for first in range(start, end, CHUNK_BYTES):
            yield source[first : min(first + CHUNK_BYTES, end)]
        return
    with source.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(CHUNK_BYTES, end - file.tell())):
            yield chunk


def download(
    transport: Transport,
    path: str,
    destination: Path,
    *,
    sha256: str,
    size_bytes: int,
    on_progress: Progress | None = None,
) -> None:
    """Fetch `path` into `destination`, which appears whole and verified or not at all; a link stays one.

    What an earlier call left unfinished is continued; one that still goes on is left alone. Raises FileExistsError
    where the destination is a device, a pipe or a folder, DownloadCorrupt, LatheApiError and ServiceUnreachable.
    """
    if destination.exists() and not destination.is_file():
        raise FileExistsError(errno.EEXIST, "is no regular file: name a file or a folder", str(destination))
    destination = destination.resolve()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _partial_file(destination, sha256) as partial:
        while (have := _bytes_in(partial)) < size_bytes:
            try:
                _continue(transport, path, partial, sha256=sha256, size_bytes=size_bytes, on_progress=on_progress)
            except httpx.TransportError as error:
                if _bytes_in(partial) <= have:
                    raise ServiceUnreachable(transport.url, error) from error
                continue
            if _bytes_in(partial) <= have:
                break
        _put_in_place(partial, destination, sha256)


@contextmanager
def _partial_file(destination: Path, sha256: str) -> Iterator[Path]:
    """Where the bytes are collected: in what an earlier download left, unless another one has it under its lock."""
    # The hash in the name: a rest of other bytes is never continued.
    shared = destination.with_name(f".{destination.name}.{sha256[:16]}.part")
    with _locked(shared) as lock:
        if lock is not None:
            try:
                yield shared
            finally:
                if _bytes_in(shared) == 0 and _is_at(shared, lock):
                    shared.unlink()
            return
    own = destination.with_name(f".{destination.name}.{uuid4().hex}.part")
    try:
        yield own
    finally:
        own.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO | None]:
    """The file under its lock; None where another holds that, or the file system has no locks."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system that a client runs on
    except ImportError:
        yield None
        return
    while True:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            except OSError:  # this file system has no locks
                path.unlink(missing_ok=True)
                break
            # Who held it before may have put it in its place: then another file is to be made.
            if _is_at(path, file):
                yield file
                return
    yield None


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _bytes_in(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(
    transport: Transport,
    path: str,
    partial: Path,
    *,
    sha256: str,
    size_bytes: int,
    on_progress: Progress | None,
) -> None:
    have = _bytes_in(partial)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'}
    with transport.open(path, headers=headers) as response:
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = have if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw():  # unbuffered: what came before a break is kept
                file.write(chunk)
                done += len(chunk)
                if done > size_bytes:
                    break  # more than was announced: the hash will not be right either
                if on_progress is not None:
                    on_progress(done, size_bytes)


def _put_in_place(partial: Path, destination: Path, sha256: str) -> None:
    partial.touch()  # an empty file is whole without a request
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if found != sha256:
        partial.unlink()
        raise DownloadCorrupt(f"{destination.name}: sha256 {found} came where {sha256} was announced.")
    partial.replace(destination)
