"""Uploads over real connections that break, to processes that die: what arrived is there, and nothing else is."""

import contextlib
import hashlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator

import httpx
from sqlalchemy import select
from uuid_utils.compat import uuid7

from app.database import Database
from app.uploads.protocol import OFFSET_OCTETS
from app.uploads.tables import ResumableUploadRow
from tests.app.blobs.test_streaming import (
    MEBIBYTE,
    MOST_GROWTH,
    SIZE,
    SLOW,
    answer_to_a_trickle,
    peak_bytes,
    pieces,
    wait_until,
)
from tests.app.uploads import metadata
from tests.live_api import LiveApi

Headers = dict[str, str]
TUS = {"Tus-Resumable": "1.0.0"}
CUTS = int(os.environ.get("LATHE_TEST_CUTS", "20"))
"""How often the connection breaks."""
CUT_BYTES = 400_000
"""Behind how many on average. What is on its way then is lost, which may be all that fits into a socket: 280 kB."""


def begin(api: LiveApi, headers: Headers, size: int) -> str:
    said = {"Upload-Length": str(size), "Upload-Metadata": metadata(kind="model", name="net")}
    with api.client() as client:
        return client.post("/v1/uploads", headers=headers | TUS | said).raise_for_status().headers["location"]


def offset(api: LiveApi, headers: Headers, address: str) -> int:
    with api.client() as client:
        return int(client.head(address, headers=headers | TUS).raise_for_status().headers["upload-offset"])


def patch(api: LiveApi, headers: Headers, address: str, start: int, content: object) -> httpx.Response:
    sent = headers | TUS | {"Upload-Offset": str(start), "Content-Type": OFFSET_OCTETS}
    with api.client() as client:
        return client.patch(address, headers=sent, content=content)  # type: ignore[arg-type]


def sha256_of(api: LiveApi, headers: Headers, answer: httpx.Response) -> str:
    """Of the bytes as they come back, of what the upload became."""
    with api.client() as client:
        content = client.get(f"{answer.headers['upload-result']}/content", headers=headers).raise_for_status().content
    return hashlib.sha256(content).hexdigest()


def open_patch(api: LiveApi, headers: Headers, address: str, start: int, framing: str) -> socket.socket:
    """A connection with the head of a PATCH sent."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(api.address))
    fields = {"Host": "lathe", "Content-Type": OFFSET_OCTETS, "Upload-Offset": str(start)} | TUS | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.sendall(f"PATCH {address} HTTP/1.1\r\n{head}{framing}\r\n\r\n".encode())
    return connection


def go_on(api: LiveApi, headers: Headers, address: str, rest: Callable[[int], object]) -> httpx.Response:
    """Send `rest(offset)` as a client does that was interrupted: what it left behind may count meanwhile, so that it
    is refused and asks again.
    """
    while True:
        start = offset(api, headers, address)
        answer = patch(api, headers, address, start, rest(start))
        if answer.status_code == 204:
            return answer
        assert answer.status_code == 409, answer.text


def test_a_connection_that_breaks_at_any_byte_spoils_none(live_api: LiveApi, writer: Headers) -> None:
    drawn = random.Random(20261129)  # noqa: S311 - a test's choice
    content = drawn.randbytes(CUTS * CUT_BYTES)
    address = begin(live_api, writer, len(content))
    for _ in range(CUTS):
        start = offset(live_api, writer, address)
        cut = min(start + drawn.randrange(1, 2 * CUT_BYTES), len(content) - 1)
        chunked = drawn.random() < 0.5
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content) - start}"
        head = f"{len(content) - start:x}\r\n".encode() if chunked else b""
        with (
            open_patch(live_api, writer, address, start, framing) as connection,
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
        ):
            connection.sendall(head + content[start:cut])
    assert offset(live_api, writer, address) > 0, "of what was read something is kept"
    answer = go_on(live_api, writer, address, lambda start: content[start:])
    assert sha256_of(live_api, writer, answer) == hashlib.sha256(content).hexdigest()


def test_another_process_goes_on_where_one_was_killed(start_api: Callable[..., LiveApi], writer: Headers) -> None:
    content = random.Random(1).randbytes(3 * MEBIBYTE)  # noqa: S311 - a test's choice
    api = start_api()
    address = begin(api, writer, len(content))
    assert patch(api, writer, address, 0, content[:MEBIBYTE]).status_code == 204
    with open_patch(api, writer, address, MEBIBYTE, f"Content-Length: {2 * MEBIBYTE}") as connection:
        connection.sendall(content[MEBIBYTE : 2 * MEBIBYTE])
        api.process.kill()
        api.process.wait()
    other = start_api()
    assert offset(other, writer, address) == MEBIBYTE, "what was acknowledged, and nothing that was not"
    assert patch(other, writer, address, MEBIBYTE, content[MEBIBYTE : 2 * MEBIBYTE]).status_code == 204
    answer = patch(other, writer, address, 2 * MEBIBYTE, content[2 * MEBIBYTE :])
    assert sha256_of(other, writer, answer) == hashlib.sha256(content).hexdigest()


def test_memory_does_not_grow_with_the_file(live_api: LiveApi, writer: Headers) -> None:
    expected = hashlib.sha256()
    for piece in pieces(SIZE):
        expected.update(piece)
    assert patch(live_api, writer, begin(live_api, writer, 7), 0, b"warm up").status_code == 204
    before = peak_bytes(live_api)
    address = begin(live_api, writer, SIZE)
    with open_patch(live_api, writer, address, 0, f"Content-Length: {SIZE}") as connection:
        for piece in pieces(100 * MEBIBYTE):
            connection.sendall(piece)
        # Parts of what one request brings count on the way.
        wait_until(lambda: offset(live_api, writer, address) == 64 * MEBIBYTE)

    def rest(start: int) -> Iterator[bytes]:
        for number, piece in enumerate(pieces(SIZE)):
            yield piece[max(0, start - number * MEBIBYTE) :]

    answer = go_on(live_api, writer, address, rest)
    with live_api.client() as client:
        assert client.get(answer.headers["upload-result"], headers=writer).json()["sha256"] == expected.hexdigest()
    assert peak_bytes(live_api) - before < MOST_GROWTH


def test_what_a_client_that_is_too_slow_has_sent_is_kept(start_api: Callable[..., LiveApi], writer: Headers) -> None:
    api = start_api(**SLOW)
    address = begin(api, writer, 10_000)
    with open_patch(api, writer, address, 0, "Content-Length: 10000") as connection:
        connection.sendall(bytes(100))
        time.sleep(0.2)
        connection.sendall(bytes(10))
        assert connection.recv(64).startswith(b"HTTP/1.1 408 ")
    assert offset(api, writer, address) == 110


def multiplied(database: Database, address: str, count: int) -> list[str]:
    """So many uploads like the one that was begun, of which none has a byte yet."""
    with database.session_scope() as session:
        begun = session.execute(select(ResumableUploadRow.__table__)).mappings().one()
        rows = [ResumableUploadRow(**{**begun, "id": uuid7()}) for _ in range(count)]
        session.add_all(rows)
        return [address.replace(str(begun["id"]), str(row.id)) for row in rows]


def test_many_clients_that_are_too_slow_cost_no_memory(
    start_api: Callable[..., LiveApi], writer: Headers, database: Database
) -> None:
    api = start_api(**SLOW, LATHE_API_OPEN_UPLOADS="0")
    addresses = multiplied(database, begin(api, writer, SIZE), 100)
    assert patch(api, writer, begin(api, writer, 7), 0, b"warm up").status_code == 204
    before = peak_bytes(api)
    with contextlib.ExitStack() as stack:
        opened = (open_patch(api, writer, address, 0, f"Content-Length: {SIZE}") for address in addresses)
        connections = [stack.enter_context(one) for one in opened]
        for answer in answer_to_a_trickle(connections):
            assert answer.startswith(b"HTTP/1.1 408 ")
    assert peak_bytes(api) - before < 48 * MEBIBYTE  # a buffer of 1 MiB for each would be 100
