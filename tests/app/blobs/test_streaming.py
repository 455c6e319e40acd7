"""Uploads and downloads over a real connection, to a process of its own."""

import contextlib
import hashlib
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from app.blobs.tables import BlobRow
from app.database import Database
from tests.live_api import LiveApi

Headers = dict[str, str]
MEBIBYTE = 1 << 20
SIZE = 128 * MEBIBYTE
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


SLOW = {"LATHE_API_MIN_UPLOAD_BYTES_PER_SECOND": "1000", "LATHE_API_SLOW_UPLOAD_GRACE_SECONDS": "1"}


def answer_to_a_trickle(connections: list[socket.socket]) -> Iterable[bytes]:
    """What each connection is told while it sends a byte a second; each is read up to its end."""
    answers: dict[socket.socket, bytes] = {}
    deadline = time.monotonic() + 60
    while len(answers) < len(connections):
        assert time.monotonic() < deadline, "they were not cut off"
        for connection in set(connections) - set(answers):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(b"x")
        for connection in select.select([one for one in connections if one not in answers], [], [], 1.0)[0]:
            answers[connection] = b"".join(iter(lambda one=connection: received(one), b""))
    return answers.values()


def received(connection: socket.socket, most_bytes: int = 65536) -> bytes:
    """Nothing where the connection is over."""
    try:
        return connection.recv(most_bytes)
    except ConnectionResetError:
        return b""


def test_clients_that_send_next_to_nothing_are_cut_off_and_cost_no_memory(
    start_api: Callable[..., LiveApi], writer: Headers, database: Database
) -> None:
    api = start_api(**SLOW, LATHE_API_OPEN_UPLOADS="0")
    with api.client() as client:
        client.post(
            "/v1/models?name=x", content=b"warm up", headers=writer | {"Content-Type": "application/octet-stream"}
        ).raise_for_status()
    before, kept = peak_bytes(api), api.stored_files()
    # Every other body is chunked, and its first chunk never ends.
    framings = 100 * [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked\r\n\r\n100000"]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(open_upload(api, writer, framing)) for framing in framings]
        for answer in answer_to_a_trickle(connections):
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"too_slow"' in answer
            assert b"at least 1000 bytes a second" in answer
    assert peak_bytes(api) - before < 48 * MEBIBYTE  # a buffer of 1 MiB for each would be 200
    assert api.stored_files() == kept
    with database.session_scope() as session:
        assert session.query(BlobRow).count() == 1


@pytest.mark.parametrize("key", [True, False], ids=["with-a-key", "with-none"])
def test_a_body_of_json_that_does_not_come_is_not_waited_for(
    start_api: Callable[..., LiveApi], writer: Headers, key: bool
) -> None:
    api = start_api(**SLOW)
    head = "POST /v1/jobs HTTP/1.1\r\nHost: lathe\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    head += f"Authorization: {writer['Authorization']}\r\n\r\n" if key else "\r\n"
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(5):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(api.address))
            connection.sendall(head.encode())
            connections.append(connection)
        for answer in answer_to_a_trickle(connections):
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"too_slow"' in answer


def test_a_client_that_pauses_and_keeps_up_is_served(start_api: Callable[..., LiveApi], writer: Headers) -> None:
    api = start_api(**SLOW)
    with open_upload(api, writer, "Content-Length: 20000") as connection:
        for _ in range(10):  # two seconds, twice the grace, at twice the slowest rate
            time.sleep(0.2)
            connection.sendall(bytes(2000))
        assert connection.recv(64).startswith(b"HTTP/1.1 201 ")


STORED = 4 * MEBIBYTE
SLOW_READERS = {"LATHE_API_MIN_DOWNLOAD_BYTES_PER_SECOND": "100000", "LATHE_API_SLOW_DOWNLOAD_GRACE_SECONDS": "1"}


def open_download(api: LiveApi, writer: Headers, path: str) -> socket.socket:
    """A connection with a download asked for, of which nothing is read."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(api.address))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: lathe\r\nAuthorization: {writer['Authorization']}\r\n\r\n".encode()
    )
    return connection


def open_connections(api: LiveApi) -> int:
    """How many the API holds, beside the socket that it listens on."""
    sockets = api.process.net_connections("unix")
    return sum(one.laddr == str(api.address) for one in sockets) - 1


def stored_model(api: LiveApi, writer: Headers) -> str:
    with api.client() as client:
        headers = writer | {"Content-Type": "application/octet-stream"}
        shown = client.post("/v1/models?name=x", content=pieces(STORED), headers=headers).json()
    return f"/v1/models/{shown['id']}/content"


def test_clients_that_read_a_byte_a_second_are_cut_off_and_cost_no_memory(
    start_api: Callable[..., LiveApi], writer: Headers
) -> None:
    api = start_api(**SLOW_READERS)
    path = stored_model(api, writer)
    before = peak_bytes(api)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(open_download(api, writer, path)) for _ in range(200)]
        begun = [one.recv(1) for one in connections]
        assert begun == [b"H"] * 200
        deadline = time.monotonic() + 60
        while open_connections(api) > 0:
            assert time.monotonic() < deadline, "they were not cut off"
            time.sleep(1)
            for one in connections:
                received(one, 1)
        taken = [sum(len(piece) for piece in iter(lambda one=one: received(one), b"")) for one in connections]
    assert max(taken) < STORED
    assert peak_bytes(api) - before < 96 * MEBIBYTE  # a chunk of 256 KiB and a piece of it for each are 62


def test_a_client_that_reads_slowly_and_keeps_up_is_served(start_api: Callable[..., LiveApi], writer: Headers) -> None:
    api = start_api(**SLOW_READERS)
    with open_download(api, writer, stored_model(api, writer)) as connection:
        taken = 0
        while taken < STORED:
            time.sleep(0.02)  # 3 MB a second, for longer than the grace
            taken += len(connection.recv(65536))
        assert taken > STORED
