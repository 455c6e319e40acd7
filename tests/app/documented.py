"""Answers held against the OpenAPI document."""

from typing import Any

import httpx
from fastapi import FastAPI

from app.surface import surface_of

# Of every answer, or of the connection: said once in words, or by HTTP itself.
EVERYWHERE = frozenset(
    {
        "allow",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "cross-origin-resource-policy",
        "referrer-policy",
        "transfer-encoding",
        "x-accel-buffering",
        "x-content-type-options",
        "x-frame-options",
        "x-request-id",
    }
)


def undocumented_headers(app: FastAPI, answer: httpx.Response) -> set[str]:
    """Headers of an answer that the document does not know of."""
    method = answer.request.method.replace("HEAD", "GET").lower()
    template = surface_of(app).template(answer.request.url.path)
    operation: dict[str, Any] = app.openapi()["paths"].get(template, {}).get(method, {})
    known = operation.get("responses", {}).get(str(answer.status_code), {}).get("headers", {})
    return set(answer.headers) - EVERYWHERE - {name.lower() for name in known}
