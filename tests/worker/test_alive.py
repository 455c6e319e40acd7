"""The health check of the containers of workers and of housekeeping."""

import socket
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from sqlalchemy import func

from app.database import Database
from app.health.tables import WorkerRow
from worker.alive import alive

HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("name", "silent_seconds", "expected"),
    [(f"{HERE}:1", 5, True), (f"{HERE}:1", 60, False), (f"{HERE}x:1", 5, False), ("%:1", 5, False)],
    ids=["heard of", "silent", "another host", "no pattern"],
)
def test_a_worker_is_alive_while_it_announces_itself(
    database: Database, name: str, silent_seconds: int, expected: bool
) -> None:
    with database.session_scope() as session:
        seen = func.now() - timedelta(seconds=silent_seconds)
        session.add(WorkerRow(name=name, queues=["cpu"], passes=[], confinement={}, versions={}, seen_at=seen))
    assert alive(database) is expected


def test_housekeeping_is_alive_while_its_rounds_go_through(database: Database, environment: dict[str, str]) -> None:
    with subprocess.Popen([sys.executable, "-m", "worker.housekeeping"], env=environment) as housekeeping:
        deadline = time.monotonic() + 30
        while not alive(database):
            assert time.monotonic() < deadline, "it never said so"
            time.sleep(0.05)
        housekeeping.terminate()
