"""The service on one machine: starts on any folder, keeps it closed, and leaves nothing running behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from alembic.util import CommandError
from kombu import Connection
from sqlalchemy import create_engine, text

from app.embedded import DataFolderInUse, EmbeddedError, EmbeddedServices, Stack, default_folder, running_url
from app.health.schemas import Component, Readiness
from app.schema import migrate, revisions

PATIENCE_SECONDS = 30
SLEEPER = ["sleep", "600"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that has been used once."""
    folder = tmp_path_factory.mktemp("embedded") / "kept"
    with EmbeddedServices(folder, durable=False):
        pass
    return folder


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServices]:
    with EmbeddedServices(tmp_path_factory.mktemp("embedded") / "services", durable=False) as started:
        yield started


def tables(services: EmbeddedServices) -> list[str]:
    engine = create_engine(services.environment["DATABASE_URL"])
    with engine.connect() as connection:
        found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
    engine.dispose()
    return sorted(found)


def at_revision(services: EmbeddedServices) -> tuple[str | None, str | None]:
    engine = create_engine(services.environment["DATABASE_URL"])
    with engine.connect() as connection:
        found = revisions(connection)
    engine.dispose()
    return found


def execute(services: EmbeddedServices, statement: str) -> None:
    engine = create_engine(services.environment["DATABASE_URL"])
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_the_urls_work_for_those_who_get_them(services: EmbeddedServices) -> None:
    assert tables(services) == []
    with Connection(services.environment["REDIS_URL"]) as broker:
        broker.ensure_connection(max_retries=1, timeout=5)
    assert services.environment["STORAGE_URL"].startswith("file:///")
    assert services.environment["LATHE_EMBEDDED"] == "1"
    assert len(services.environment["LATHE_SECRET_KEY"]) == 64


def test_nobody_else_can_enter(services: EmbeddedServices) -> None:
    entries = [services.folder.path, *services.folder.path.iterdir(), *services.folder.runtime.iterdir()]
    names = {entry.name for entry in entries}
    assert {"lock", "secret_key", "postgres", "logs", "storage", "work", ".s.PGSQL.5432", "redis.sock"} <= names
    assert [entry for entry in entries if stat.S_IMODE(entry.lstat().st_mode) & 0o077] == []


def test_nothing_listens_on_a_port(services: EmbeddedServices) -> None:
    for process in (services.postgres, services.redis):
        assert process.pid is not None
        family = psutil.Process(process.pid)
        assert [link for each in (family, *family.children()) for link in each.net_connections("inet")] == []


def test_the_service_is_no_superuser(services: EmbeddedServices) -> None:
    with (
        psycopg.connect(host=str(services.folder.runtime), user="lathe", dbname="lathe") as link,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        link.execute("COPY (SELECT 1) TO PROGRAM 'true'")


def test_whoever_may_not_have_the_role_of_requests_is_told_what_helps(services: EmbeddedServices) -> None:
    superuser = {"host": str(services.folder.runtime), "user": "postgres", "dbname": "lathe", "autocommit": True}
    with psycopg.connect(**superuser) as link:
        link.execute("REVOKE lathe_request FROM lathe")
        with pytest.raises(CommandError, match="CREATE ROLE lathe_request NOLOGIN; GRANT lathe_request TO"):
            migrate(services.environment["DATABASE_URL"])
        assert at_revision(services)[0] == "20261129_retention"  # those before are there, each by itself
        link.execute("GRANT lathe_request TO lathe")
    migrate(services.environment["DATABASE_URL"])
    current, head = at_revision(services)
    assert current == head


def test_redis_comes_back_empty(services: EmbeddedServices) -> None:
    before = services.redis.pid
    with redis.Redis(unix_socket_path=str(services.redis.socket)) as client:
        client.set("wake", "up")
        services.redis.kill()
        services.redis.start()
        assert client.get("wake") is None
    assert services.redis.pid != before


def test_a_folder_serves_one_at_a_time(services: EmbeddedServices) -> None:
    with pytest.raises(DataFolderInUse, match=f"in use by process {os.getpid()};"):
        EmbeddedServices(services.folder.path).start()
    assert services.postgres.running()


def test_data_and_secret_outlive_a_stop(kept: Path) -> None:
    with EmbeddedServices(kept) as first:
        execute(first, "CREATE TABLE kept (id integer)")
    with EmbeddedServices(kept) as second:
        assert "kept" in tables(second)
    assert first.environment == second.environment


def test_a_deep_folder_gets_short_sockets(kept: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "data"
    deep.parent.mkdir()
    kept.rename(deep)
    try:
        with EmbeddedServices(deep) as services:
            runtime = services.folder.runtime
            assert not runtime.is_relative_to(deep)
            assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
            tables(services)
        assert not runtime.exists()
        runtime.mkdir(mode=0o755)
        with pytest.raises(EmbeddedError, match="open to others"):
            EmbeddedServices(deep).start()
        runtime.rmdir()
    finally:
        deep.rename(kept)


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot be used: Not a directory; choose another with --data"):
        EmbeddedServices(tmp_path / "file" / "data").start()


SUPERVISOR = """
import signal, sys
from pathlib import Path
from app.embedded import Stack
stack = Stack(Path(sys.argv[1]), port=0, commands={"sleeper": ["sleep", "600"], "other": ["sleep", "600"]},
              say=lambda line: print(line, flush=True))
if sys.argv[2] == "start":
    stack.start()
    print(*(process.pid for process in stack.processes().values()), flush=True)
    signal.pause()
else:
    stack.wait_ready = lambda but_for: {}
    stack.run_forever()
"""


def family_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_a_kill_of_the_supervisor_leaves_nothing_but_data(kept: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(kept), "start"], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    with supervisor:
        assert len(supervisor.stdout.readline().split()) == 4
        family = family_of(supervisor.pid)
        # Redis, two sleepers, and Postgres with its five of its own.
        assert len(family) >= 9
        supervisor.kill()
    assert psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1] == []
    with EmbeddedServices(kept) as services:
        assert "jobs" in tables(services)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long, id="SIGINT"), pytest.param(signal.SIGTERM, id="SIGTERM")],
)
def test_a_signal_stops_everything(kept: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(kept), "run"]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert supervisor.stdout is not None
    with supervisor:
        assert supervisor.stdout.readline() == b"starting\n"
        assert supervisor.stdout.readline().startswith(b"ready on http://127.0.0.1:")
        family = family_of(supervisor.pid)
        # The whole group gets it, as from a terminal; the parts are out of its reach and are stopped in order.
        os.killpg(supervisor.pid, number)
        assert supervisor.wait(PATIENCE_SECONDS) == 0
        assert supervisor.stdout.read() == b"stopping\n"
    assert psutil.wait_procs(family, timeout=0.1)[1] == []
    assert "database system is shut down" in (kept / "logs" / "postgres.log").read_text()


def test_what_a_kill_of_postgres_leaves_is_no_obstacle(kept: Path) -> None:
    services = EmbeddedServices(kept)
    services.start()
    mark = kept / "postgres" / "postmaster.pid"
    assert services.postgres.pid is not None
    left = family_of(services.postgres.pid)
    os.kill(services.postgres.pid, signal.SIGKILL)
    psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
    # The number in the mark has gone to somebody else's process since.
    mark.write_text(mark.read_text().replace(str(services.postgres.pid), str(os.getpid()), 1))
    services.postgres.kill()
    services.postgres.start()
    tables(services)
    services.stop()


@pytest.mark.parametrize("part", ["postgres", "redis", "sleeper"])
def test_a_part_that_ends_is_started_again(kept: Path, part: str) -> None:
    said: list[str] = []
    stack = Stack(kept, port=0, commands={"sleeper": SLEEPER}, say=said.append)
    stack.start()
    try:
        before = stack.pid(part)
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (now := stack.processes()[part].pid) in {before, None}:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert now is not None
        assert any(part in line and "starting it again" in line for line in said)
        while part != "sleeper" and not answers(stack.services, part):
            assert time.monotonic() < deadline
    finally:
        heads = [psutil.Process(stack.pid(name)) for name in stack.processes()]
        family = [each for head in heads for each in (head, *head.children(recursive=True))]
        stack.stop()
    assert psutil.wait_procs(family, timeout=0.1)[1] == []


def answers(services: EmbeddedServices, part: str) -> bool:
    try:
        if part == "postgres":
            tables(services)
        else:
            with redis.Redis(unix_socket_path=str(services.redis.socket)) as client:
                client.ping()
    except Exception:
        return False
    return True


def test_a_part_that_will_not_stop_is_killed(kept: Path) -> None:
    stubborn = [sys.executable, "-c", "import signal; signal.signal(15, 1); print('up', flush=True); signal.pause()"]
    stack = Stack(kept, port=0, commands={"stubborn": stubborn})
    stack.start()
    process = stack.processes()["stubborn"]
    process.stop_seconds = 0.2
    while process.last_words() != "up":
        time.sleep(0.01)
    pid = stack.pid("stubborn")
    stack.stop()
    assert not psutil.pid_exists(pid)


def test_what_a_part_started_stops_with_it(kept: Path) -> None:
    stack = Stack(kept, port=0, commands={"parent": ["sh", "-c", "sleep 600 & echo up; wait"]})
    stack.start()
    while stack.processes()["parent"].last_words() != "up":
        time.sleep(0.01)
    family = family_of(stack.pid("parent"))
    stack.stop()
    assert len(family) == 1
    assert psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1] == []


def test_the_first_key_is_kept_for_the_owner(kept: Path) -> None:
    stack = Stack(kept, port=0, commands={"idle": ["sleep", "600"]})
    stack.start()
    stack.stop()
    first = stack.key
    assert first.startswith("lth_")
    assert stat.S_IMODE(stack.key_file.stat().st_mode) == 0o600
    stack.start()
    stack.stop()
    assert stack.key == first


def test_where_it_answers_is_recorded_while_it_runs(kept: Path) -> None:
    stack = Stack(kept, port=0, commands={"idle": ["sleep", "600"]})
    stack.start()
    recorded = running_url(kept)
    mode = stat.S_IMODE((kept / "url").stat().st_mode)
    stack.stop()
    assert (recorded, mode) == (stack.url, 0o600)
    assert not (kept / "url").exists()


def test_logs_of_the_run_before_are_kept(kept: Path) -> None:
    for run in ("first", "second"):
        stack = Stack(kept, port=0, commands={"speaker": ["sh", "-c", f"echo {run}; sleep 600"]})
        stack.start()
        while stack.processes()["speaker"].last_words() != run:
            time.sleep(0.01)
        stack.stop()
    assert (kept / "logs" / "speaker.log.1").read_text() == "first\n"


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"127.0.0.1:{port} cannot be used: Address already in use"):
            Stack(tmp_path / "data", port=port).start()
    assert not (tmp_path / "data").exists()


def test_what_is_not_ready_is_said(kept: Path) -> None:
    stack = Stack(kept, port=0, commands={"sleeper": SLEEPER})
    stack.start()
    try:
        with pytest.raises(EmbeddedError, match=r"not ready after 0\.2 s: api: does not answer; logs are in"):
            stack.wait_ready(0.2)
    finally:
        stack.stop()


class FullDisk(BaseHTTPRequestHandler):
    """Says that all is well but storage."""

    def do_GET(self) -> None:
        parts = {"redis": Component(ok=True, detail="answers"), "storage": Component(ok=False, detail="no room")}
        self.send_response(503)
        self.end_headers()
        self.wfile.write(Readiness(ready=False, components=parts, workers=[]).model_dump_json().encode())


def test_a_full_disk_does_not_keep_a_service_from_starting_in_which_it_is_emptied(kept: Path) -> None:
    stack = Stack(kept, port=0, commands={"sleeper": SLEEPER})
    stack.start()
    server = HTTPServer(("127.0.0.1", stack.port), FullDisk)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert stack.wait_ready(PATIENCE_SECONDS, but_for={"storage"}) == {"storage": "no room"}
        with pytest.raises(EmbeddedError, match=r"not ready after 0\.2 s: storage: no room; logs are in"):
            stack.wait_ready(0.2)
    finally:
        server.shutdown()
        server.server_close()
        stack.stop()


@pytest.mark.parametrize(
    ("environment", "user", "expected"),
    [
        ({"LATHE_DATA_FOLDER": "/somewhere"}, 0, "/somewhere"),
        ({}, 0, "/var/lib/lathe"),
        ({"HOME": "/home/someone"}, 1000, "/home/someone/.local/share/lathe"),
    ],
    ids=["given", "root", "a user"],
)
def test_the_data_folder_by_default(
    environment: dict[str, str], user: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LATHE_DATA_FOLDER", "HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert default_folder() == Path(expected)
