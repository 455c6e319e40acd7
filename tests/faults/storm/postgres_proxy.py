"""A proxy before Postgres that can lose the answer to one commit: it happened, and whoever asked for it is cut off.

Reads as much of the protocol as that needs (PostgreSQL documentation, "Frontend/Backend Protocol").
"""

import asyncio
import threading
from collections.abc import Iterator
from enum import StrEnum

from tests.faults.storm.proxy import CHUNK_BYTES, Proxy

PROTOCOL_3 = 3  # the major version in a startup message; requests for encryption bear another number


class Commit(StrEnum):
    """What a transaction did that matters here."""

    ACCEPT = "accept"
    CLAIM = "claim"
    FINISH = "finish"


# Words of the statements that only this transaction makes (`app/jobs/submission.py`, `app/jobs/lease.py`).
SIGNS = {
    Commit.ACCEPT: (b"INSERT INTO jobs ",),
    Commit.CLAIM: (b"UPDATE jobs SET", b"fence=(jobs.fence +"),
    Commit.FINISH: (b"UPDATE jobs SET", b"summary="),
}


class Conversation:
    """What one client says: which statements are in its transaction, and when it commits."""

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._prepared: dict[bytes, bytes] = {}
        self._done: set[Commit] = set()

    def hear(self, chunk: bytes) -> set[Commit]:
        """What the transaction did that these bytes commit, as far as they commit one."""
        self._rest += chunk
        committed: set[Commit] = set()
        for kind, body in self._messages():
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text
            elif kind == b"B":
                self._note(self._prepared.get(body.split(b"\0", 2)[1], b""))
            elif kind == b"Q":
                text = body.rstrip(b"\0").strip().upper()
                if text.startswith(b"COMMIT"):
                    committed |= self._done
                if text.startswith((b"BEGIN", b"COMMIT", b"ROLLBACK")):
                    self._done = set()
        return committed

    def _note(self, statement: bytes) -> None:
        self._done |= {commit for commit, words in SIGNS.items() if all(word in statement for word in words)}

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            head = 1 if self._started else 0
            if len(self._rest) < head + 4:
                return
            size = head + int.from_bytes(self._rest[head : head + 4], "big")
            if len(self._rest) < size:
                return
            message, self._rest = self._rest[:size], self._rest[size:]
            if self._started:
                yield message[:1], message[5:]
            elif int.from_bytes(message[4:6], "big") == PROTOCOL_3:
                self._started = True


class PostgresProxy(Proxy):
    """Loses the answer to the next commit of a kind, once asked to."""

    _awaited: Commit | None = None
    _lost = threading.Event()

    def lose_answer(self, commit: Commit, within_seconds: float) -> bool:
        """Whether such a commit came within that time, and its answer was lost."""
        self._lost = threading.Event()
        self._awaited = commit
        try:
            return self._lost.wait(within_seconds)
        finally:
            self._awaited = None

    async def forward(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """As any proxy, until it is the turn of an answer that is to be lost: that is read, and nobody gets it."""
        conversation = Conversation()
        answers = asyncio.ensure_future(self.pump(server, to_client))
        try:
            while not answers.done() and (chunk := await self._read(client, answers)):
                if self._awaited not in conversation.hear(chunk):
                    await self.pass_on(chunk, to_server)
                    continue
                self._awaited = None
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
                await self.pass_on(chunk, to_server)
                await server.read(1)  # it is committed before a word of this is sent
                self._lost.set()
                return
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _read(self, client: asyncio.StreamReader, answers: "asyncio.Task[None]") -> bytes:
        """What the client says next; nothing once either has gone."""
        reading = asyncio.ensure_future(client.read(CHUNK_BYTES))
        await asyncio.wait([reading, answers], return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return b""
