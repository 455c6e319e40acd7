"""Postgres and Redis, up for as long as a block of code runs."""

from pathlib import Path
from typing import Self

from app.embedded.folder import DataFolder
from app.embedded.postgres import Postgres
from app.embedded.redis_server import RedisServer


class EmbeddedServices:
    """The bundled Postgres and Redis on `folder`, which is made if it is missing.

    Enter it from a thread that outlives the block: the kernel ends both when that thread ends.
    `environment` holds what the programs of the service need to find them.
    `durable=False` spares Postgres its waits for the disk, for tests.

    Raises EmbeddedError (DataFolderInUse among them) on entering.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._path = folder
        self._durable = durable
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        self.folder = DataFolder(self._path)
        started: list[Postgres | RedisServer] = []
        try:
            self.postgres = Postgres(self.folder, durable=self._durable)
            self.redis = RedisServer(self.folder)
            for service in (self.postgres, self.redis):
                service.rotate_log()
                started.append(service)
                service.start()
            self.environment = {
                "DATABASE_URL": self.postgres.url,
                "REDIS_URL": self.redis.url,
                "STORAGE_URL": self.folder.subfolder("storage").as_uri(),
                "LATHE_EMBEDDED": "1",
                "LATHE_SECRET_KEY": self.folder.secret_key(),
                "LATHE_WORK_FOLDER": str(self.folder.subfolder("work")),
            }
        except BaseException:
            for service in reversed(started):
                service.stop()
            self.folder.release()
            raise

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop()
        self.folder.release()
