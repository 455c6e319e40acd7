"""What the OpenAPI document says of uploads."""

from typing import Any

from app import links
from app.blobs.open_uploads import TooManyUploads
from app.blobs.receiving import DigestMismatch, EmptyUpload, IncompleteUpload
from app.errors import (
    LatheError,
    StorageFull,
    StorageQuotaExceeded,
    TooLarge,
    TooManyQueuedInspections,
    TooSlow,
    UnsupportedMediaType,
)
from app.headers import described

UPLOAD_ERRORS: tuple[type[LatheError], ...] = (
    IncompleteUpload,
    TooSlow,
    TooLarge,
    UnsupportedMediaType,
    EmptyUpload,
    DigestMismatch,
    StorageFull,
    StorageQuotaExceeded,
    TooManyUploads,
    TooManyQueuedInspections,
)


def upload_body(media_types: tuple[str, ...], description: str) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body by itself."""
    schema = {"type": "string", "format": "binary", "description": "The file's bytes."}
    return {
        "parameters": [
            {
                "name": "Content-Digest",
                "in": "header",
                "required": False,
                "description": "`sha-256=:<base64>:` (RFC 9530). Where it is sent, other bytes are refused.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "description": description,
            "content": {media_type: {"schema": schema} for media_type in media_types},
        },
    }


def upload_replies(noun: str, schema: str, *also_linked: str) -> dict[int | str, dict[str, Any]]:
    """The successes of such a route; `also_linked` are operations on what was uploaded, beside reading it."""
    there = {
        "headers": described("Location"),
        "links": links.to(f"{noun}_id", f"get_{noun}", *also_linked),
    }
    shape = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        200: {
            "description": f"The same bytes were here already: this is their {noun}.",
            "content": shape,
        }
        | there,
        201: {"description": f"The {noun} is stored, and its inspection queued."} | there,
    }
