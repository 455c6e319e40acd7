"""The API where clients find it that know nothing of Unix sockets."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.database import Database


@pytest.fixture
def service_url(environment: dict[str, str], database: Database) -> Iterator[str]:
    """The API under uvicorn, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uvicorn = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--no-access-log"]
        descriptor = listener.fileno()
        process = subprocess.Popen([*uvicorn, "--fd", str(descriptor)], env=environment, pass_fds=[descriptor])
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # who comes early waits in the queue of the port
        process.terminate()
        process.wait(timeout=10)
