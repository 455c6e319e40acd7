"""Heads of requests that do not end, and bodies that come when the answer is out: nobody holds a connection with them.

None of these clients has a key.
"""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.embedded.stack import programs
from app.heads import MOST_HEAD_BYTES, HttpProtocol
from tests.live_api import LiveApi

GET = b"GET /healthz HTTP/1.1\r\nHost: lathe\r\n"
UPLOAD = b"POST /v1/models?name=x HTTP/1.1\r\nHost: lathe\r\nContent-Type: application/octet-stream\r\n"
GRACE = {"LATHE_API_SLOW_UPLOAD_GRACE_SECONDS": "1"}
# Far longer than the grace: a connection that is held for that is held for ever.
PATIENCE_SECONDS = 20
MEBIBYTE = 1 << 20


@pytest.fixture
def connect(start_api: Callable[..., LiveApi]) -> Iterator[Callable[[], socket.socket]]:
    """Open connections to one API with a short grace."""
    api = start_api(**GRACE)
    with contextlib.ExitStack() as stack:

        def one() -> socket.socket:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(str(api.address))
            return connection

        yield one


def drip(connection: socket.socket, drop: bytes) -> bytes:
    """What is answered to a drop every 0.2 s, up to the end of the connection."""
    answer, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    connection.settimeout(0.2)
    while time.monotonic() < deadline:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(drop)
        try:
            received = connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            return answer
        if not received:
            return answer
        answer += received
    raise AssertionError("it was not cut off")


def one_answer(connection: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def flood(connection: socket.socket, piece: bytes) -> tuple[int, bytes]:
    """How many bytes were taken before the end, and what was answered."""
    sent, answer = 0, b""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < 64 * MEBIBYTE:
            connection.sendall(piece)
            sent += len(piece)
    with contextlib.suppress(ConnectionResetError):
        while received := connection.recv(65536):
            answer += received
    return sent, answer


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"GET /", id="address"),
        pytest.param(GET + b"X-Long: ", id="value"),
        pytest.param(GET, id="name"),
    ],
)
def test_a_head_without_end_is_refused(connect: Callable[[], socket.socket], begun: bytes) -> None:
    connection = connect()
    connection.sendall(begun)
    sent, answer = flood(connection, b"a" * 16384)
    # Buffers of the socket and one read beyond the bound; more would be memory.
    assert sent < 4 * MEBIBYTE
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"head_too_large"' in answer
    assert str(MOST_HEAD_BYTES).encode() in answer


def test_many_short_headers_are_as_many_bytes(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(GET)
    sent, answer = flood(connection, b"a: b\r\n" * 2000)
    assert sent < 4 * MEBIBYTE
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_trailers_without_end_are_not_kept(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Trailer: ")
    sent, _ = flood(connection, b"a" * 16384)
    assert sent < 4 * MEBIBYTE


@pytest.mark.parametrize(("spare", "status"), [(1024, b"200"), (-1, b"431")])
def test_the_bound_is_the_same_for_a_head_that_comes_at_once(
    connect: Callable[[], socket.socket], spare: int, status: bytes
) -> None:
    connection = connect()
    connection.sendall(GET + b"X-Long: " + b"a" * (MOST_HEAD_BYTES - spare) + b"\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 " + status


def test_a_head_that_trickles_in_is_not_waited_for(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(GET + b"X-Slow: ")
    answer = drip(connection, b"a")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in answer


def test_a_connection_that_asks_for_nothing_is_closed(connect: Callable[[], socket.socket]) -> None:
    assert connect().recv(64) == b""


@pytest.mark.parametrize("drop", [b"\r\n", b"G"], ids=["empty-lines", "half-a-head"])
def test_a_connection_that_was_used_is_held_no_longer(connect: Callable[[], socket.socket], drop: bytes) -> None:
    connection = connect()
    connection.sendall(GET + b"\r\n")
    assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
    drip(connection, drop)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_a_body_behind_its_refusal_is_not_waited_for(connect: Callable[[], socket.socket], framing: bytes) -> None:
    connection = connect()
    chunk = b"" if framing.startswith(b"Content") else b"100000\r\n"
    connection.sendall(UPLOAD + framing + b"\r\n\r\n" + chunk)
    answer = drip(connection, b"x")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_comes_soon_behind_its_refusal_leaves_the_connection_usable(
    connect: Callable[[], socket.socket],
) -> None:
    connection = connect()
    connection.sendall(UPLOAD + b"Content-Length: 100000\r\n\r\n")
    assert one_answer(connection).startswith(b"HTTP/1.1 401 ")
    connection.sendall(bytes(100_000))
    connection.sendall(GET[:20])
    time.sleep(0.1)
    connection.sendall(GET[20:] + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 ") == 2


def test_every_api_is_started_with_the_bounds() -> None:
    dockerfile = (Path(__file__).parent.parent.parent / "docker" / "Dockerfile").read_text()
    [image] = re.findall(r'CMD (\["python", "-m", "uvicorn"(?:[^\]]|\n)*\])', dockerfile)
    for command in (json.loads(image.replace("\\\n", "")), programs("127.0.0.1", 8000)["api"]):
        assert command[command.index("--http") + 1] == f"{HttpProtocol.__module__}:{HttpProtocol.__name__}"
