"""A real HTTP server whose answers a test writes down: for what a sound service does too rarely to be tested on it."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from app.client import Lathe

Connect = Callable[..., Lathe]


class Server:
    """An application of the test's own, on a port of its own."""

    def __init__(self) -> None:
        self.app = FastAPI()
        config = uvicorn.Config(self.app, port=0, log_level="critical", ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def start(self) -> str:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        if self._thread.is_alive():  # a test that was skipped has not started it
            self._server.should_exit = True
            self._thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    scripted = Server()
    yield scripted
    scripted.stop()


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Start the server and open a client to it."""
    clients: list[Lathe] = []

    def open_client(**options: float) -> Lathe:
        clients.append(Lathe(server.start(), "lth_test", **options))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()
