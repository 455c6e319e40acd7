"""How large the head of a request may be, and how long it may take: uvicorn bounds neither.

Both hold before anybody is asked for a key: else whoever has none could fill the memory, or hold connections for ever.
"""

import asyncio
from typing import cast

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.config import ApiSettings
from app.errors import LatheError, TooSlow
from app.problems import problem_response

# Other servers take 8 to 32 KiB, and what a client, a key and a proxy put there is a few.
MOST_HEAD_BYTES = 64 << 10
log = structlog.get_logger()


class HeadTooLarge(LatheError):
    status, code, title = 431, "head_too_large", "The head of the request is larger than this service accepts"


class HttpProtocol(HttpToolsProtocol):
    """One connection, as uvicorn serves it, and with bounds.

    While no request is being answered, the next head must be whole within the grace that uploads have, and with it what
    is left of a body whose answer came before it was read. Memory holds no more than the bound and one read beyond it.
    """

    _overdue: asyncio.TimerHandle | None = None
    _in_head = False
    # Since the last head or piece of a body: a head on its way, or what may follow a body.
    _undelivered_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._undelivered_bytes += len(data)
        super().data_received(data)
        if self._undelivered_bytes > MOST_HEAD_BYTES:
            self._refuse(_too_large())
        elif self._is_idle() and self._overdue is None:
            self._wait_for_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # What came in one read with its end was never counted above.
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD_BYTES:
            error = _too_large()
            self._refuse(error)
            raise error  # the parser reads no further
        self._in_head = False
        self._undelivered_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._undelivered_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._undelivered_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        api: ApiSettings = self.app_state["api"]
        self._overdue = self.loop.call_later(api.slow_upload_grace_seconds, self._cut_off, api)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _cut_off(self, api: ApiSettings) -> None:
        seconds = api.slow_upload_grace_seconds
        self._refuse(TooSlow(f"The head was not here after {seconds:g} s.", remedy="Send it at once."))

    def _refuse(self, error: LatheError) -> None:
        """End the connection; with an answer where one would be taken for that of the request it is for."""
        if self.transport.is_closing():
            return
        log.info("head_refused", code=error.code)
        if not self._is_idle():
            self.transport.abort()
            return
        if self._in_head:
            answer = problem_response(error)
            answer.headers["Connection"] = "close"
            head = b"".join(name + b": " + value + b"\r\n" for name, value in answer.raw_headers)
            self.transport.write(STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"A head has at most {MOST_HEAD_BYTES} bytes.", remedy="Send shorter headers.")
