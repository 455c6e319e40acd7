"""A TCP proxy in front of a server's Unix socket, that can stop forwarding without a word."""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

CHUNK_BYTES = 1 << 16
START_SECONDS = 10


class Proxy:
    """Listens on a port of 127.0.0.1 from `start` to `stop`, in a thread of its own."""

    def __init__(self, upstream: Path) -> None:
        self.upstream = upstream
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=f"proxy-{upstream.name}", daemon=True)
        self._listening = threading.Event()
        self._ending: asyncio.Event
        self._flowing: asyncio.Event

    def start(self) -> None:
        self._thread.start()
        if not self._listening.wait(START_SECONDS):
            raise RuntimeError("the proxy does not listen")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(START_SECONDS)

    def _end(self) -> None:
        self._ending.set()
        self._flowing.set()

    def swallow_everything(self) -> None:
        """From now on nothing passes: connections stand, new ones too, and nobody hears of it."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """What was held up goes on its way, as after a network was away."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        self._ending, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        links: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = asyncio.ensure_future(self._link(reader, writer))
            links.add(link)
            link.add_done_callback(links.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._ending.wait()
        server.close()
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _link(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        to_server = None
        try:
            server, to_server = await asyncio.open_unix_connection(str(self.upstream))
            await self.forward(client, to_client, server, to_server)
        except OSError:
            pass  # the server is down, or one of the two has gone: so the other one sees an end
        finally:
            for writer in (to_client, to_server):
                if writer is not None:
                    writer.transport.abort()

    async def forward(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """Until either side closes."""
        ways = [
            asyncio.ensure_future(self.pump(client, to_server)),
            asyncio.ensure_future(self.pump(server, to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            with suppress(OSError):
                await asyncio.gather(*ways, return_exceptions=True)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self.pass_on(chunk, writer)

    async def pass_on(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        writer.write(chunk)
        await writer.drain()
