"""Uploads and downloads over a real connection, to a process of its own."""

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.blobs.tables import BlobRow
from app.database import Database
from tests.conftest import LiveApi

Headers = dict[str, str]
MEBIBYTE = 1 << 20
SIZE = 192 * MEBIBYTE
# Measured: about 35 MiB, most of it two parts of 8 MiB and four chunks of 4 MiB on their way; the aim is below 64.
MOST_GROWTH = 64 * MEBIBYTE


def peak_bytes(api: LiveApi) -> int:
    """The most memory that the API's process ever had resident."""
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def pieces(size: int) -> Iterator[bytes]:
    for index in range(size // MEBIBYTE):
        yield bytes([index % 251]) * MEBIBYTE


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def open_upload(api: LiveApi, headers: Headers, framing: str) -> socket.socket:
    """A connection with the head of an upload sent."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(api.address))
    fields = {"Host": "lathe", "Content-Type": "application/octet-stream"} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.sendall(f"POST /v1/models?name=x HTTP/1.1\r\n{head}{framing}\r\n\r\n".encode())
    return connection


def test_memory_does_not_grow_with_the_file(live_api: LiveApi, writer: Headers) -> None:
    expected = hashlib.sha256()
    for piece in pieces(SIZE):
        expected.update(piece)
    with live_api.client() as client:
        headers = writer | {"Content-Type": "application/octet-stream"}
        client.post("/v1/models?name=first", content=b"warm up", headers=headers).raise_for_status()
        before = peak_bytes(live_api)
        shown = client.post("/v1/models?name=big", content=pieces(SIZE), headers=headers).json()
        assert shown["sha256"] == expected.hexdigest()
        assert shown["size_bytes"] == SIZE
        assert peak_bytes(live_api) - before < MOST_GROWTH
        back = hashlib.sha256()
        with client.stream("GET", f"/v1/models/{shown['id']}/content", headers=writer) as answer:
            for chunk in answer.iter_raw():
                back.update(chunk)
        assert back.hexdigest() == expected.hexdigest()
        assert peak_bytes(live_api) - before < MOST_GROWTH


@pytest.mark.parametrize(
    "framing", [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"], ids=["length", "chunked"]
)
def test_a_client_that_leaves_leaves_nothing(
    live_api: LiveApi, writer: Headers, database: Database, framing: str
) -> None:
    with open_upload(live_api, writer, framing) as connection:
        chunked = framing.startswith("Transfer")
        for _ in range(24):
            connection.sendall(b"100000\r\n" * chunked + bytes(MEBIBYTE) + b"\r\n" * chunked)
        wait_until(lambda: live_api.stored_files() != [])
    wait_until(lambda: live_api.stored_files() == [])
    with database.session_scope() as session:
        assert session.query(BlobRow).count() == 0
    with live_api.client() as client:
        assert client.get("/healthz").status_code == 200


def test_a_server_that_is_stopped_leaves_nothing(live_api: LiveApi, writer: Headers) -> None:
    with open_upload(live_api, writer, f"Content-Length: {SIZE}") as connection:
        for _ in range(24):
            connection.sendall(bytes(MEBIBYTE))
        wait_until(lambda: live_api.stored_files() != [])
        live_api.process.terminate()
        connection.shutdown(socket.SHUT_RDWR)
    live_api.process.wait(timeout=20)
    assert live_api.stored_files() == []


def test_an_upload_that_is_announced_too_large_is_refused_before_it_is_sent(
    start_api: Callable[..., LiveApi], writer: Headers
) -> None:
    api = start_api(LATHE_API_MAX_UPLOAD_BYTES="1000")
    with open_upload(api, writer, "Content-Length: 1001\r\nExpect: 100-continue") as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
    assert api.stored_files() == []


def test_an_upload_that_turns_out_too_large_is_refused_on_the_way(
    start_api: Callable[..., LiveApi], writer: Headers
) -> None:
    api = start_api(LATHE_API_MAX_UPLOAD_BYTES=str(16 * MEBIBYTE))
    with open_upload(api, writer, "Transfer-Encoding: chunked") as connection:
        for _ in range(17):
            connection.sendall(b"100000\r\n" + bytes(MEBIBYTE) + b"\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
    assert api.stored_files() == []
