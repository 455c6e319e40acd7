"""How slowly an answer may be taken: whoever holds a connection and reads next to nothing is cut off."""

import asyncio

import structlog
from starlette.types import Message, Send

from app.config import ApiSettings
from app.patience import Patience

# What of an answer waits in this process for a reader, at most.
PIECE_BYTES = 64 << 10
log = structlog.get_logger()


class Reader:
    """Who reads one answer. `send` takes the place of the server's.

    A large body goes in pieces, each once the one before has left the process, so that a connection that is to be cut
    off shows, and costs little until then. Servers hand out no way to drop a connection with all that still waits to
    be sent; uvicorn's `send` is a method of what holds the transport. Under another server nobody is cut off.
    """

    def __init__(self, send: Send, api: ApiSettings) -> None:
        self._send = send
        self._patience = Patience(api.min_download_bytes_per_second, api.slow_download_grace_seconds)
        self._transport: asyncio.Transport | None = getattr(getattr(send, "__self__", None), "transport", None)
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

    async def send(self, message: Message) -> None:
        body = message.get("body", b"")
        if self._transport is None or not body:
            await self._pass_on(message)
            return
        for start in range(0, len(body), PIECE_BYTES):
            await self._pass_on({**message, "body": body[start : start + PIECE_BYTES], "more_body": True})
        if not message.get("more_body", False):
            # The server goes on to the next request, or closes, once the last piece has left.
            await self._pass_on({**message, "body": b""})

    async def _pass_on(self, message: Message) -> None:
        """The server waits here until what it was given before has left."""
        loop = asyncio.get_running_loop()
        began, seconds = loop.time(), self._patience.seconds
        overdue = None if seconds is None else loop.call_later(seconds, self._cut_off)
        try:
            await self._send(message)
        finally:
            if overdue is not None:
                overdue.cancel()
        self._patience.account(loop.time() - began, len(message.get("body", b"")))

    def _cut_off(self) -> None:
        if self._transport is not None:
            log.info("slow_reader_cut_off", unsent_bytes=self._transport.get_write_buffer_size())
            self._transport.abort()
