"""The bundled Redis: on a Unix socket, no port, nothing written to disk. Postgres is the truth; this only wakes."""

import os
import time

import redis

from app.embedded.bundled import redis_program
from app.embedded.folder import DataFolder, EmbeddedError
from app.embedded.managed_process import ManagedProcess

START_SECONDS = 20.0


class RedisServer(ManagedProcess):
    def __init__(self, folder: DataFolder) -> None:
        self.socket = folder.runtime / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "dir": str(folder.runtime),
            "loglevel": "warning",
        }
        super().__init__(
            name="redis",
            command=[
                str(redis_program("redis-server")),
                *(word for name, value in options.items() for word in (f"--{name}", value)),
            ],
            log=folder.logs / "redis.log",
            environment={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )

    @property
    def url(self) -> str:
        """In kombu's spelling of a Unix socket."""
        return f"redis+socket://{self.socket}"

    def prepare(self) -> None:
        self.socket.unlink(missing_ok=True)

    def start(self) -> None:
        """Start, and wait until it answers."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError as error:
                    if not self.running() or time.monotonic() > deadline:
                        raise EmbeddedError(f"Redis did not start: {self.last_words() or error}") from error
                time.sleep(0.01)
