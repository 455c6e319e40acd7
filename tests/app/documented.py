"""Answers held against the OpenAPI document."""

from typing import Any

import httpx
from fastapi import FastAPI

from app.observation import HTTPS_HEADERS, SECURITY_HEADERS
from app.surface import surface_of

# Of every answer, or of the connection: said once in words, or by HTTP itself.
EVERYWHERE = {name.lower() for name in SECURITY_HEADERS | HTTPS_HEADERS} | {
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "ratelimit",
    "ratelimit-policy",
    "transfer-encoding",
    "tus-resumable",
    "x-accel-buffering",
    "x-request-id",
}


def undocumented_headers(app: FastAPI, answer: httpx.Response) -> set[str]:
    """Headers that the document does not know of; an answer of no operation (a page, a wrong address) has none."""
    method = answer.request.method.lower()
    template = surface_of(app).template(answer.request.url.path)
    operations: dict[str, Any] = app.openapi()["paths"].get(template, {})
    operation = operations.get(method, operations.get("get") if method == "head" else None)
    if operation is None:
        return set()
    known = operation["responses"].get(str(answer.status_code), {}).get("headers", {})
    return set(answer.headers) - EVERYWHERE - {name.lower() for name in known}
