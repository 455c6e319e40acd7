"""The health check of a worker's container."""

import socket
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
