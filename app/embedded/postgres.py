"""The bundled Postgres: on a Unix socket in a closed folder, so whoever can reach it is trusted."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psycopg

from app.database import REQUEST_ROLE
from app.embedded.bundled import postgres_program
from app.embedded.folder import DataFolder, EmbeddedError
from app.embedded.managed_process import ManagedProcess
from app.processes import tied_command

# Postgres refuses to run as root. Run by root, it runs as `nobody`.
STAND_IN_FOR_ROOT = 65534
ROLE = DATABASE = "lathe"
START_SECONDS = 60.0
LEFTOVER_SECONDS = 10.0
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Postgres(ManagedProcess):
    """Its data live in `<data>/postgres`. `durable=False` trades a crash of the machine for speed, for tests."""

    def __init__(self, folder: DataFolder, *, durable: bool = True) -> None:
        self.data = folder.path / "postgres"
        self.sockets = folder.runtime
        settings = [
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "max_connections=200",
            *(() if durable else NOT_DURABLE),
        ]
        super().__init__(
            name="postgres",
            command=[
                str(postgres_program("postgres")),
                *("-D", str(self.data), "-k", str(self.sockets)),
                *(word for setting in settings for word in ("-c", setting)),
            ],
            log=folder.logs / "postgres.log",
            environment={"PATH": os.defpath, "LANG": "C.UTF-8"},
            stop_signal=signal.SIGINT,  # fast shutdown: ends connections, writes a checkpoint
            death_signal=signal.SIGQUIT,  # immediate shutdown: takes its own children along
            user_id=STAND_IN_FOR_ROOT if os.geteuid() == 0 else None,
        )

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{ROLE}@/{DATABASE}?host={quote(str(self.sockets), safe='')}"

    def prepare(self) -> None:
        """Make the data folder at the first start; after a crash, end what is left and take its mark away."""
        if not self.data.exists():
            self._initialize()
        self._end_leftovers()
        # We hold the lock of the data folder and have ended every process in it. What number the mark bears, somebody
        # else's process may bear by now, and Postgres would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _initialize(self) -> None:
        draft = self.data.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if self.user_id is not None:
            os.chown(draft, self.user_id, self.user_id)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        command = [str(postgres_program("initdb")), "-D", str(draft), *options]
        done = subprocess.run(  # noqa: S603 - the bundled program
            tied_command(command, user_id=self.user_id),
            env=self.environment,
            cwd=draft.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"Postgres could not be set up in {self.data}: {(done.stderr or done.stdout).strip()}")
        draft.rename(self.data)

    def _end_leftovers(self) -> None:
        """Kill what a supervisor that was killed left: Postgres works in its data folder, and nothing else does."""
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while left := [process for process in _processes() if _folder_of(process) == self.data]:
            if time.monotonic() > deadline:
                raise EmbeddedError(f"an earlier Postgres in {self.data} does not end: process {left[0].name}")
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
            time.sleep(0.02)

    def start(self) -> None:
        """Start, wait until it answers, and make the role and the database if they are missing."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(
                    host=str(self.sockets), user="postgres", dbname="postgres", autocommit=True
                ) as link:
                    self._make_database(link)
                return
            except psycopg.OperationalError as error:
                if not self.running() or time.monotonic() > deadline:
                    raise EmbeddedError(f"Postgres did not start: {self.last_words() or error}") from error
            time.sleep(0.02)

    def _make_database(self, link: psycopg.Connection) -> None:
        # Not a superuser: Postgres lets those run programs and read files.
        if link.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone() is None:
            link.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
        # It may make no roles either, so the one that requests take on is made for it.
        if link.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (REQUEST_ROLE,)).fetchone() is None:
            link.execute(f"CREATE ROLE {REQUEST_ROLE} NOLOGIN")
        link.execute(f"GRANT {REQUEST_ROLE} TO {ROLE}")
        if link.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            link.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _folder_of(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None
