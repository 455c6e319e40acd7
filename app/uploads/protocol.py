"""The protocol tus 1.0 (https://tus.io/protocols/resumable-upload), as far as it is about headers."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Header
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import LatheError, Unprocessable

if TYPE_CHECKING:
    from hashlib import _Hash

PATH = "/v1/uploads"
VERSION = "1.0.0"
EXTENSIONS = ("creation", "creation-with-upload", "checksum", "expiration", "termination")
ALGORITHMS = ("sha1", "sha256")
OFFSET_OCTETS = "application/offset+octet-stream"
OVERRIDDEN = frozenset({"PATCH", "DELETE", "HEAD"})


class UnsupportedTusVersion(LatheError):
    status, code, title = 412, "unsupported_tus_version", "The request speaks another version of tus"
    sends = ("Tus-Version",)


class UnsupportedChecksum(LatheError):
    status, code, title = 400, "unsupported_checksum", "The checksum cannot be read"


class ChecksumMismatch(LatheError):
    status, code, title = 460, "checksum_mismatch", "The bytes are not those that the checksum names"


class InvalidUploadMetadata(Unprocessable):
    code, title = "invalid_upload_metadata", "The upload's metadata lacks something, or cannot be read"


async def speak_tus(
    tus_resumable: Annotated[
        str | None, Header(alias="Tus-Resumable", description=f"The version of tus that is spoken: `{VERSION}`.")
    ] = None,
) -> None:
    """A dependency of every operation but OPTIONS. Raises UnsupportedTusVersion."""
    if tus_resumable != VERSION:
        said = "names none" if tus_resumable is None else f"names `{tus_resumable[:100]}`"
        raise UnsupportedTusVersion(
            f"The request {said} in `Tus-Resumable`.", f"Send `Tus-Resumable: {VERSION}`.", {"Tus-Version": VERSION}
        )


class TusLayer:
    """`Tus-Resumable` in every answer, and `X-HTTP-Method-Override` for clients that can send nothing but POST."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_upload_path(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        method = Headers(scope=scope).get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and method in OVERRIDDEN:
            scope = {**scope, "method": method}
        await self._app(scope, receive, send_with_version)


def is_upload_path(path: str) -> bool:
    return path == PATH or path.startswith(f"{PATH}/")


@dataclass(frozen=True)
class Checksum:
    """What a client says that the body of its request is."""

    hash: "_Hash"
    expected: bytes

    def verify(self) -> None:
        """Raises ChecksumMismatch where other bytes went into the hash."""
        if not hmac.compare_digest(self.hash.digest(), self.expected):
            found = base64.b64encode(self.hash.digest()).decode()
            raise ChecksumMismatch(
                f"The bytes that arrived have the {self.hash.name} {found}; none of them is kept.",
                remedy="Send them again from the same offset.",
            )


def read_checksum(text: str | None) -> Checksum | None:
    """`sha1 <base64>`. Raises UnsupportedChecksum."""
    if text is None:
        return None
    algorithm, _, encoded = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise UnsupportedChecksum(
            f"There is no checksum by `{algorithm[:100]}` here.", remedy=f"Use one of {', '.join(ALGORITHMS)}."
        )
    # tus names sha1 as the one that everybody has; it guards against accidents.
    hash_ = hashlib.new(algorithm, usedforsecurity=False)
    try:
        expected = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        expected = b""
    if len(expected) != hash_.digest_size:
        raise UnsupportedChecksum(
            f"`Upload-Checksum` is not the base64 of {hash_.digest_size} bytes.", f"`{algorithm} <base64>`."
        )
    return Checksum(hash_, expected)


def read_metadata(text: str) -> dict[str, str]:
    """`Upload-Metadata`: keys with values in base64, by commas. Raises InvalidUploadMetadata."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, encoded = pair.partition(" ")
        try:
            value = base64.b64decode(encoded.strip(), validate=True).decode()
        except ValueError:
            raise InvalidUploadMetadata(
                f"The value of `{key[:100]}` is not the base64 of UTF-8.", remedy="`Upload-Metadata: key <base64>,...`."
            ) from None
        if key in found:
            raise InvalidUploadMetadata(f"`{key[:100]}` is there twice.")
        found[key] = value
    return found
