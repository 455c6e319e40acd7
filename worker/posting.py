"""One POST to an address that was resolved and looked at, within a deadline, following nothing."""

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx


class _Bounded(httpcore.NetworkStream):
    """A connection that is over at its deadline, however busy it is kept.

    Timeouts of single reads let a receiver that sends a byte now and then hold a thread for as long as it likes.
    """

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def _left(self, kind: type[Exception]) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise kind("the time was up")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._left(httpcore.ConnectTimeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Pinned(httpcore.SyncBackend):
    """Connects to the given addresses, whatever the host is called: no name is resolved a second time."""

    def __init__(self, addresses: list[str], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectTimeout("the time was up")
        for number, address in enumerate(self._addresses):
            # A share of what is left for each: one that swallows packets leaves time for the next.
            left = (self._deadline - time.monotonic()) / (len(self._addresses) - number)
            if left <= 0:
                break
            try:
                return _Bounded(super().connect_tcp(address, port, left, local_address, socket_options), self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def post(url: httpx.URL, addresses: list[str], headers: dict[str, str], body: bytes, deadline: float) -> int:
    """The status of the answer, of which no more than the head is read. `deadline` is by `time.monotonic`.

    The host's name stays in `Host` and in TLS, whose certificate must be the host's. Raises httpcore's errors.
    """
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    fixed = [(b"Host", url.netloc), (b"Content-Length", str(len(body)).encode())]
    sent = [*fixed, *((name.encode(), value.encode()) for name, value in headers.items())]
    pinned = _Pinned(addresses, deadline)
    # To read the certificates of all authorities takes 40 ms of processor time.
    trusted = ssl.create_default_context() if url.scheme == "https" else None
    with (
        httpcore.ConnectionPool(ssl_context=trusted, network_backend=pinned) as pool,
        pool.stream("POST", target, headers=sent, content=body) as answer,
    ):
        return int(answer.status)
