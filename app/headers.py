"""Response headers, as the OpenAPI document describes them."""

from typing import Any

DESCRIPTIONS = {
    "Accept-Ranges": "`bytes`: parts can be asked for with `Range`.",
    "Content-Digest": "The SHA-256 of this body (RFC 9530).",
    "Content-Disposition": "`attachment`, with a file name that is safe (RFC 6266).",
    "Content-Range": "Which bytes these are, of how many; with 416, how many there are (RFC 9110, 14.4).",
    "ETag": "Names this state; sent as `If-None-Match` it saves an answer that says the same.",
    "Location": "The address of what was accepted.",
    "RateLimit": "What is left: `r` requests, and more in `t` seconds (draft-ietf-httpapi-ratelimit-headers).",
    "RateLimit-Policy": "The limit: `q` requests in `w` seconds, for all keys of the workspace together.",
    "Repr-Digest": "The SHA-256 of the whole that this is a part of (RFC 9530).",
    "Retry-After": "Seconds after which to ask again; not sent where there is nothing to wait for.",
    "Tus-Checksum-Algorithm": "Algorithms that `Upload-Checksum` may name.",
    "Tus-Extension": "Extensions of tus that are there.",
    "Tus-Max-Size": "The most bytes that an upload may have.",
    "Tus-Version": "Versions of tus that are spoken.",
    "Upload-Expires": "When the upload is deleted unless more of it comes; not sent once it is whole.",
    "Upload-Length": "How many bytes the upload will have.",
    "Upload-Metadata": "What was said of the upload when it was begun.",
    "Upload-Offset": "How many bytes are there: the next ones begin here.",
    "Upload-Result": "The address of the model or dataset that the upload became; sent once it is whole.",
    "WWW-Authenticate": "`Bearer`, and what was wrong with the key (RFC 6750).",
}


def described(*names: str) -> dict[str, Any]:
    """The `headers` of a documented response."""
    return {name: {"description": DESCRIPTIONS[name], "schema": {"type": "string"}} for name in names}
