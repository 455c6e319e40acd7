"""The whole service on one machine, under one supervisor that stops its parts together."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydantic import SecretStr, ValidationError

from app.access.provisioning import ensure_first_key
from app.client.transport import own_connections
from app.config import Settings
from app.embedded.folder import EmbeddedError
from app.embedded.managed_process import ManagedProcess
from app.embedded.services import EmbeddedServices
from app.health.schemas import Readiness
from app.schema import migrate

WATCH_SECONDS = 0.2
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
# A process that lived this long starts again at the first backoff.
STEADY_SECONDS = 60.0
READY_SECONDS = 120.0
READY_POLL_SECONDS = 0.1
# A full disk is emptied, and a foreign mark changed, through the service that runs.
MENDED_MEANWHILE = frozenset({"storage", "storage_mark"})


def module(name: str, *arguments: str) -> list[str]:
    """A Python module as a command; nothing in the current folder is imported in its stead."""
    return [sys.executable, "-P", "-m", name, *arguments]


def worker(queue: str) -> list[str]:
    options = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
    return module("celery", "-A", "worker.celery_app", "worker", *options, "-Q", queue, "-n", f"{queue}@%h")


def programs(host: str, port: int) -> dict[str, list[str]]:
    """The commands of the service itself, by name, in the order in which they start."""
    served = ["app.main:create_app", "--factory", "--http", "app.heads:HttpProtocol"]
    bound = ["--host", host, "--port", str(port), "--no-access-log", "--timeout-graceful-shutdown", "3"]
    return {
        "api": module("uvicorn", *served, *bound),
        "worker": worker("cpu"),
        # Its own worker, so that an upload is inspected while a long job runs.
        "inspector": worker("inspect"),
        "housekeeping": module("worker.housekeeping"),
    }


@dataclass
class Watched:
    """A process that is started again when it ends."""

    process: ManagedProcess
    started_at: float
    backoff_seconds: float = FIRST_BACKOFF_SECONDS
    restart_at: float | None = field(default=None)


class Stack:
    """Postgres, Redis, API, workers and housekeeping on `folder`.

    `port` 0 picks a free one. `say` gets one line at a time of what a person at a terminal should know.
    Start it from a thread that outlives it: the kernel ends every part when that thread ends.

    Raises EmbeddedError (DataFolderInUse among them) where it cannot start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        say: Callable[[str], None] = lambda line: None,
        commands: dict[str, list[str]] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._say = say
        self._commands = commands
        self.services = EmbeddedServices(folder)
        self.environment: dict[str, str] = {}
        self.key_file = folder.absolute() / "key"
        self._watched: list[Watched] = []
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._changing = threading.Lock()
        self._watcher: threading.Thread | None = None

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def key(self) -> str:
        """The first key's text, as stored for the owner of the data folder."""
        return self.key_file.read_text().strip()

    def processes(self) -> dict[str, ManagedProcess]:
        """Every part by name, Postgres and Redis included."""
        return {watched.process.name: watched.process for watched in self._watched}

    def pid(self, name: str) -> int:
        """The process id of one part. Raises KeyError, and EmbeddedError while it is down."""
        pid = self.processes()[name].pid
        if pid is None:
            raise EmbeddedError(f"{name} is not running")
        return pid

    def start(self) -> None:
        """Start every part, in order; returns before the API answers (`wait_ready`)."""
        self._stopping.clear()
        self._stopped.clear()
        self.port = _free_port(self.host, self.port)
        self.services.start()
        try:
            self._watch(self.services.postgres)
            self._watch(self.services.redis)
            self.environment = self.services.environment
            migrate(self.environment["DATABASE_URL"])
            self._keep_first_key()
            for name, command in (self._commands or programs(self.host, self.port)).items():
                self._start_program(name, command)
            self.services.folder.record_url(self.url)
        except BaseException:
            self._stop_programs()
            self.services.stop()
            raise
        self._watcher = threading.Thread(target=self._keep_running, name="lathe-watcher", daemon=True)
        self._watcher.start()

    def _keep_first_key(self) -> None:
        settings = Settings(
            database_url=SecretStr(self.environment["DATABASE_URL"]),
            redis_url=SecretStr(self.environment["REDIS_URL"]),
            storage_url=self.environment["STORAGE_URL"],
            secret_key=SecretStr(self.environment["LATHE_SECRET_KEY"]),
            embedded=True,
        )
        key = ensure_first_key(settings)
        if key is not None:
            self.services.folder.write_secret("key", key)

    def _start_program(self, name: str, command: list[str]) -> None:
        log = self.services.folder.logs / f"{name}.log"
        process = ManagedProcess(name, command, log, os.environ | self.environment)
        process.rotate_log()
        process.start()
        self._watch(process)

    def _watch(self, process: ManagedProcess) -> None:
        self._watched.append(Watched(process, time.monotonic()))

    def _keep_running(self) -> None:
        """Start again what ended, later each time. Lives until all are stopped: what it starts dies with it."""
        while not self._stopping.wait(WATCH_SECONDS):
            for watched in self._watched:
                with self._changing:
                    if not self._stopping.is_set():
                        self._look_after(watched)
        self._stopped.wait()

    def _look_after(self, watched: Watched) -> None:
        if watched.process.running():
            return
        now = time.monotonic()
        if watched.restart_at is None:
            if now - watched.started_at > STEADY_SECONDS:
                watched.backoff_seconds = FIRST_BACKOFF_SECONDS
            watched.restart_at = now + watched.backoff_seconds
            self._say(f"{watched.process.name} ended; starting it again (see {watched.process.log})")
        elif now >= watched.restart_at:
            watched.restart_at = None
            watched.started_at = now
            watched.backoff_seconds = min(2 * watched.backoff_seconds, LONGEST_BACKOFF_SECONDS)
            with suppress(EmbeddedError, OSError):
                watched.process.start()

    def wait_ready(self, timeout: float = READY_SECONDS, but_for: Container[str] = ()) -> dict[str, str]:
        """Wait until `/readyz` says that every part works. What is wrong with those that need not, by name.

        Raises:
            EmbeddedError: others do not by then; it says which.

        """
        deadline = time.monotonic() + timeout
        missing = {"api": "does not answer"}
        with httpx.Client(timeout=5, **own_connections(self.url)) as client:
            while time.monotonic() < deadline and not self._stopping.is_set():
                missing = _missing(client, f"{self.url}/readyz")
                if all(name in but_for for name in missing):
                    return missing
                time.sleep(READY_POLL_SECONDS)
        if not self._stopping.is_set():
            words = "; ".join(f"{name}: {what}" for name, what in missing.items())
            raise EmbeddedError(f"not ready after {timeout:g} s: {words}; logs are in {self.services.folder.logs}")
        return {}

    def stop(self) -> None:
        """Stop every part in reverse order, each within a bounded time."""
        self._stopping.set()
        with self._changing:
            self._stop_programs()
            self.services.stop()
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None

    def _stop_programs(self) -> None:
        """All but Postgres and Redis, which the services stop."""
        for watched in reversed(self._watched):
            if watched.process not in (self.services.postgres, self.services.redis):
                watched.process.stop()
        self._watched.clear()

    def run_forever(self) -> None:
        """Start, say where it is, and stop on SIGINT or SIGTERM. For the main thread."""
        asked = threading.Event()

        def ask(number: int, frame: object) -> None:
            del number, frame
            asked.set()
            self._stopping.set()

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._say("starting")
            self.start()
            try:
                if asked.is_set():
                    return
                missing = self.wait_ready(but_for=MENDED_MEANWHILE)
                if not asked.is_set():
                    self._say(f"ready on {self.url}; the key is in {self.key_file}")
                    for name, what in missing.items():
                        self._say(f"but for its {name}: {what}")
                asked.wait()
            finally:
                self._say("stopping")
                self.stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _missing(client: httpx.Client, address: str) -> dict[str, str]:
    """What is wrong with the parts that are not ok, by name; nothing where all are."""
    try:
        answer = client.get(address)
        if answer.status_code == httpx.codes.OK:
            return {}
        parts = Readiness.model_validate_json(answer.content).components
        return {name: part.detail for name, part in parts.items() if not part.ok}
    except (httpx.HTTPError, ValidationError):
        return {"api": "does not answer"}


def _free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. Raises EmbeddedError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        # As the API itself will: a port that the run before has just let go of is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise EmbeddedError(
                f"{host}:{port} cannot be used: {error.strerror}; choose another with --port"
            ) from error
        return int(trial.getsockname()[1])
