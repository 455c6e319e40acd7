"""Uploads: in one piece, or, where they are large, so that they go on where the connection broke (tus 1.0)."""

import base64
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from app.client import transfer
from app.client.errors import LatheApiError, LatheClientError, NotConfigured
from app.client.transfer import Progress
from app.client.transport import OUTAGE_SECONDS, Transport

Kind = Literal["model", "dataset"]
RESUMABLE_FROM_BYTES = 64 << 20
REQUEST_BYTES = 64 << 20
"""Of one request: what proxies and people can bear to wait for."""
STALLS = 6
"""Requests in a row of which no byte arrived, before the upload is given up."""
SLOWEST_STORAGE_BYTES_PER_SECOND = 20e6
"""How fast the service puts an upload together at the end: until then the last answer is waited for."""
GIVING_UP_SECONDS = 5.0
"""How long an upload that is given up is tried to be deleted, where the service does not answer."""
# Another request makes it whole, or the last bytes wait until some of what came before has been inspected.
WAITED_FOR = ("upload_being_finished", "too_many_queued_inspections")
TUS = {"Tus-Resumable": "1.0.0"}
# Other bytes arrived meanwhile, or these came too slowly or not as they were sent: how it stands is asked again.
ASKED_AGAIN = frozenset({408, 409, 460})


def threshold_bytes(given: int | None) -> int:
    """From how many bytes on uploads are resumable. Raises NotConfigured where the environment names no number."""
    if given is not None:
        return given
    text = os.environ.get("LATHE_RESUMABLE_FROM_BYTES", "")
    if text and not (text.isascii() and text.isdigit()):
        raise NotConfigured(f"LATHE_RESUMABLE_FROM_BYTES is `{text}`: it must be a number of bytes.")
    return int(text) if text else RESUMABLE_FROM_BYTES


def send(
    transport: Transport,
    kind: Kind,
    content: Path | bytes,
    *,
    name: str,
    media_type: str,
    on_progress: Progress | None,
    resumable_from_bytes: int,
) -> httpx.Response:
    """The answer that shows what the upload has become.

    Raises LatheApiError, ServiceUnreachable, and LatheClientError where a large file is written to meanwhile; then
    nothing of it stays with the service, as far as that answers.
    """
    size_bytes = transfer.size_of(content)
    if size_bytes and size_bytes >= resumable_from_bytes:
        upload = _Resumable(transport, content, on_progress)
        return transport.send("GET", upload.send(kind, name, media_type))
    return transport.send(
        "POST",
        f"/v1/{kind}s",
        params={"name": name},
        headers={"Content-Type": media_type, "Content-Length": str(size_bytes)},
        content=lambda: transfer.chunks(content, on_progress),
    )


class _Resumable:
    """One upload on its way; `_result` is the address of what it became, once it is whole."""

    def __init__(self, transport: Transport, content: Path | bytes, on_progress: Progress | None) -> None:
        self._transport = transport
        self._content = content
        self._version = _version(content)
        self._size_bytes = transfer.size_of(content)
        self._on_progress = on_progress
        self._address = ""
        self._offset_bytes = 0
        self._result: str | None = None

    def send(self, kind: Kind, name: str, media_type: str) -> str:
        """All of it; the address of what it has become."""
        said = {"kind": kind, "name": name, "filetype": media_type}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items())
        headers = TUS | {"Upload-Length": str(self._size_bytes), "Upload-Metadata": metadata}
        begun = self._transport.send("POST", "/v1/uploads", headers=headers)
        self._address = urlsplit(begun.headers.get("Location", "")).path
        if not self._address:
            raise LatheApiError.from_response(begun)
        try:
            while self._result is None:
                self._transport.repeat(self._advance, attempts=STALLS, also=ASKED_AGAIN)
        except BaseException:
            self._give_up()
            raise
        return self._result

    def _give_up(self) -> None:
        """Have the service delete what has arrived, for nobody knows of it any more; where it is away, that expires."""
        with suppress(LatheClientError, httpx.RequestError):
            self._transport.once("DELETE", self._address, headers=TUS, timeout_seconds=GIVING_UP_SECONDS)

    def _advance(self, attempt: int) -> None:
        """Bring more bytes there, or find that an earlier attempt did: whatever was gained, patience begins anew."""
        start = self._offset_bytes
        if attempt > 1:
            self._ask()
            if self._result is not None or self._offset_bytes > start:
                return
        end = min(start + REQUEST_BYTES, self._size_bytes)
        headers = {
            "Upload-Offset": str(start),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(end - start),
        }
        try:
            answer = self._transport.once(
                "PATCH",
                self._address,
                headers=TUS | headers,
                content=self._chunks(start, end),
                timeout_seconds=self._transport.timeout_seconds + self._seconds_behind(end),
            )
        except LatheApiError as error:
            if error.code not in WAITED_FOR:
                raise
            # It takes as long as it takes, and is no stall.
            time.sleep(error.retry_after_seconds or 1.0)
            self._ask()
        else:
            self._note(answer)

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        for chunk in transfer.chunks(self._content, self._on_progress, start=start, end=end):
            # After they were read: every request opens the file anew, and a mixture of two would pass for a model.
            if isinstance(self._content, Path) and _version(self._content) != self._version:
                raise LatheClientError(f"{self._content} was written to while it was uploaded: upload it again.")
            yield chunk

    def _ask(self) -> None:
        """How the upload stands, once the service answers again."""
        try:
            self._note(self._transport.send("HEAD", self._address, headers=TUS, retry_seconds=OUTAGE_SECONDS))
        except LatheApiError as error:
            # It is gone. Why is in no answer to HEAD, but in that to the bytes which are sent next.
            if error.status not in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                raise

    def _note(self, answer: httpx.Response) -> None:
        offset = answer.headers.get("Upload-Offset", "")
        if not offset.isdigit():
            raise LatheApiError.from_response(answer)
        self._offset_bytes = int(offset)
        self._result = answer.headers.get("Upload-Result")

    def _seconds_behind(self, end: int) -> float:
        return self._size_bytes / SLOWEST_STORAGE_BYTES_PER_SECOND if end == self._size_bytes else 0.0


def _version(content: Path | bytes) -> tuple[int, ...]:
    """What changes with the bytes of a file."""
    if isinstance(content, bytes):
        return ()
    found = content.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
