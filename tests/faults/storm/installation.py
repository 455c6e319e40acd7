"""The whole service as `lathe serve` starts it, with more workers and housekeepers, its servers behind proxies."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil
import redis
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.access.service import create_key
from app.config import Settings
from app.database import Database
from app.embedded import EmbeddedServices, Stack
from app.embedded.postgres import DATABASE, ROLE
from app.embedded.stack import programs, worker
from tests.faults.storm.interposing import Interposer
from tests.faults.storm.postgres_proxy import PostgresProxy
from tests.faults.storm.proxy import Proxy
from worker.work_folders import GATE

WORKERS = ("worker-1", "worker-2")
HOUSEKEEPERS = ("housekeeping-1", "housekeeping-2", "housekeeping-3")
DISK_BYTES = 256 << 20
# What a worker that is killed while it tries its confinement leaves: the next one knows nothing of it.
PROBES = "lathe-probe-"
WORKSPACES = ("left", "right")
# A load is no user who polls too often, and a job that is measured in one thread leaves the other core to the next.
SETTINGS = {
    "LATHE_LIMITS_REQUESTS_PER_MINUTE": "0",
    "LATHE_RUNNER_TIMING_ROUNDS": "3",
    "LATHE_RUNNER_THREADS": "1",
    "LATHE_RUNNER_MEMORY_BYTES": str(4 << 30),
    "LATHE_API_MIN_FREE_BYTES": "0",
    "OMP_NUM_THREADS": "1",
}


class ProxiedServices(EmbeddedServices):
    """The bundled Postgres and Redis, which are reached through proxies."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._settings = settings
        self.postgres_proxy: PostgresProxy
        self.redis_proxy: Proxy
        self.temporary: Path
        """Where programs have their temporary files: a folder by itself, to tell ours from others'."""

    def start(self) -> None:
        super().start()
        self.postgres_proxy = PostgresProxy(self.postgres.sockets / ".s.PGSQL.5432")
        self.redis_proxy = Proxy(self.redis.socket)
        for proxy in (self.postgres_proxy, self.redis_proxy):
            proxy.start()
        self.temporary = Path(tempfile.mkdtemp(prefix="lathe-storm-"))  # a short path, for sockets lie in it
        self.environment |= {
            "TMPDIR": str(self.temporary),
            "DATABASE_URL": f"postgresql+psycopg://{ROLE}@127.0.0.1:{self.postgres_proxy.port}/{DATABASE}",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_proxy.port}/0",
            **SETTINGS,
            **self._settings,
        }

    def stop(self) -> None:
        for proxy in (self.postgres_proxy, self.redis_proxy):
            proxy.stop()
        super().stop()
        shutil.rmtree(self.temporary)


class Installation:
    """Two workers for jobs, one for inspections, three housekeepers, one API; all started again when they end.

    `settings` are variables of the environment of every program, which are started with an `interposer` where one is
    given. `small_disks` gives storage and work folder a disk each, where that may be done. A `lean` one starts sooner:
    one housekeeper, and a worker that inspects as well.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        lean: bool = False,
        small_disks: bool = False,
        interposer: Interposer | None = None,
    ) -> None:
        self.interposer = interposer
        self.disks_missing = "" if small_disks else "they were not asked for"
        """Why there are no small disks."""
        self._mounted: list[Path] = []
        self._folder = folder
        port = _free_port()
        usual = programs("127.0.0.1", port)
        commands = {"api": usual["api"]} | dict.fromkeys(WORKERS, usual["worker"])
        commands |= dict.fromkeys(HOUSEKEEPERS[: 1 if lean else None], usual["housekeeping"])
        if lean:
            commands[WORKERS[0]] = worker("cpu,inspect")
        else:
            commands["inspector"] = usual["inspector"]
        self.stack = Stack(folder, port=port, commands=commands)
        preloading = interposer.environment if interposer else {}
        self.services = ProxiedServices(folder, {**settings, **preloading})
        self.stack.services = self.services
        self.keys: list[str] = []

    def start(self) -> None:
        """Returns when it is ready, with a workspace and a key for each of `WORKSPACES`."""
        if not self.disks_missing:
            self._mount_small_disks()
        self.stack.start()
        try:
            self.stack.wait_ready()
            self._open()
        except BaseException:
            self.stack.stop()
            self._unmount()
            raise

    def _open(self) -> None:
        # Around the proxies: what watches must see while they are silent.
        self.settings = Settings(
            database_url=SecretStr(self.services.postgres.url),
            redis_url=SecretStr(self.services.redis.url),
            storage_url=self.stack.environment["STORAGE_URL"],
            secret_key=SecretStr(self.stack.environment["LATHE_SECRET_KEY"]),
            embedded=True,
        )
        self.database = Database(self.settings)
        with self.database.session_scope() as session:
            for workspace in WORKSPACES:
                _, key = create_key(
                    session,
                    workspace=workspace,
                    name="storm",
                    scopes=["read", "write"],
                    lifetime=None,
                    secret_key=self.settings.secret_key.get_secret_value(),
                )
                self.keys.append(key)

    def stop(self) -> None:
        self.database.dispose()
        self.stack.stop()
        self._unmount()

    def _mount_small_disks(self) -> None:
        """In memory; where that is not allowed it is noted why."""
        for name in ("storage", "work"):
            place = self._folder / name
            place.mkdir(mode=0o700, parents=True)
            options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(place)]
            done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
            if done.returncode:
                self.disks_missing = f"no disk can be mounted: {done.stderr.strip()}"
                return
            self._mounted.append(place)

    def _unmount(self) -> None:
        for place in self._mounted:
            subprocess.run(["umount", str(place)], check=True)

    @property
    def url(self) -> str:
        return self.stack.url

    @property
    def storage_folder(self) -> Path:
        return Path(unquote(urlsplit(self.stack.environment["STORAGE_URL"]).path))

    @property
    def work_folder(self) -> Path:
        return Path(self.stack.environment["LATHE_WORK_FOLDER"])

    def pid(self, name: str) -> int | None:
        """The process of one part; None while it is down."""
        process = self.stack.processes().get(name)
        return process.pid if process is not None and process.running() else None

    def servers_answer(self) -> bool:
        """Whether Postgres and Redis are there, around the proxies."""
        with suppress(SQLAlchemyError, redis.RedisError):
            with self.database.session_scope() as session:
                session.execute(text("SELECT 1"))
            with redis.Redis(unix_socket_path=str(self.services.redis.socket)) as server:
                return bool(server.ping())
        return False

    def strike(self, name: str, number: signal.Signals) -> bool:
        """A signal to one part and whatever is in its group. Whether it was there to get it."""
        pid = self.pid(name)
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.killpg(pid, number)
            return True
        return False

    def runners(self, worker: str | None = None) -> list[psutil.Process]:
        """Processes that the runners of `worker`, or of all, consist of, parents first."""
        if worker is None:
            return [process for process in psutil.process_iter() if self._works_here(process)]
        pid = self.pid(worker)
        with suppress(psutil.Error):
            found = [] if pid is None else psutil.Process(pid).children(recursive=True)
            # A worker that has just started tries its confinement on children as well.
            return found if any(self._works_here(process) for process in found) else []
        return []

    def left_over(self) -> list[Path]:
        """What is in the work folder and in the folder for temporary files, beside what stays there."""
        work = [path for path in self.work_folder.iterdir() if path.name != GATE]
        temporary = [path for path in self.services.temporary.iterdir() if not path.name.startswith(PROBES)]
        return work + temporary

    def _works_here(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return str(self.work_folder) in " ".join(process.cmdline())
        return False


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
