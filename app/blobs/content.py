"""Stored bytes as an answer: ETag, conditions, ranges (RFC 9110), a safe file name (RFC 6266), a digest (RFC 9530)."""

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.blobs.tables import storage_key
from app.errors import RangeNotSatisfiable
from app.headers import described
from app.storage import Storage

SINGLE_RANGE = re.compile(r"bytes=\s*(\d{0,20})-(\d{0,20})\s*", re.IGNORECASE)
UNSAFE = re.compile(r"[^A-Za-z0-9._+ -]")
MAX_NAME = 200

BYTES = {"schema": {"type": "string", "format": "binary"}}
JSON = "application/json"
SENT = ("ETag", "Accept-Ranges", "Content-Disposition")


def content_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """What a route documents, beside its errors, that answers with content of these types."""
    content: dict[str, Any] = {name: {"schema": {}} if name == JSON else BYTES for name in media_types}
    return {
        200: {
            "description": "The bytes. `ETag` is their SHA-256 in quotes; `Content-Digest` has it as RFC 9530 wants.",
            "headers": described(*SENT, "Content-Digest"),
            "content": content,
        },
        206: {
            "description": "The one range that `Range` asked for.",
            "headers": described(*SENT, "Content-Range", "Repr-Digest"),
            "content": content,
        },
        304: {
            "description": "The bytes are those that `If-None-Match` names.",
            "headers": described(*SENT, "Content-Digest"),
        },
    }


@dataclass(frozen=True)
class Content:
    """Stored bytes, and what a browser is told of them."""

    workspace_id: UUID
    blob_id: UUID
    sha256: bytes
    size_bytes: int
    file_name: str
    media_type: str


async def content_response(request: Request, storage: Storage, content: Content) -> Response:
    """The bytes, or what the request's conditions leave of them; streamed, in constant memory.

    Raises RangeNotSatisfiable, and ContentMissing where storage has lost them.
    """
    etag = f'"{content.sha256.hex()}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(content.file_name),
        "Content-Digest": f"sha-256=:{base64.b64encode(content.sha256).decode()}:",
        "X-Content-Type-Options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    start, end, status = 0, content.size_bytes, 200
    wanted = _wanted_range(request, etag, content.size_bytes)
    if wanted is not None:
        start, end = wanted
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size_bytes}"
        # The digest is of the content of this very message, so a part cannot bear that of the whole.
        headers["Repr-Digest"] = headers.pop("Content-Digest")
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content.media_type)
    chunks: AsyncIterator[bytes] = await storage.read(storage_key(content.workspace_id, content.blob_id), start, end)
    return StreamingResponse(chunks, status, headers, content.media_type)


def disposition(file_name: str) -> str:
    """`attachment` with a name that no shell, browser or file system reads as anything but a name (RFC 6266)."""
    name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", file_name).strip(". ")[:MAX_NAME] or "download"
    plain = UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _matches(condition: str | None, etag: str) -> bool:
    """If-None-Match: `*`, or a list of tags compared weakly (RFC 9110, 13.1.2)."""
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags


def _wanted_range(request: Request, etag: str, size_bytes: int) -> tuple[int, int] | None:
    """Start and end, exclusive; None where the whole is wanted, or where the server may answer with it.

    A list of ranges, another unit and a malformed field are passed over, which RFC 9110, 14.2 allows.
    Raises RangeNotSatisfiable.
    """
    match = SINGLE_RANGE.fullmatch(request.headers.get("range", ""))
    condition = request.headers.get("if-range")
    # If-Range compares strongly; a date never matches, for there is no Last-Modified here.
    if match is None or (condition is not None and condition.strip() != etag):
        return None
    first, last = match[1], match[2]
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RangeNotSatisfiable(
            f"The content has {size_bytes} bytes.", headers={"Content-Range": f"bytes */{size_bytes}"}
        )
    return start, end
