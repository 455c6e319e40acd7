"""What a worker tells of itself."""

import time

from sqlalchemy import select

from app.config import Settings
from app.database import Database
from app.health.tables import WorkerRow
from worker.presence import Presence

PATIENCE_SECONDS = 60.0  # it tries the sandbox first


def test_a_worker_says_how_many_threads_it_gives_a_model(settings: Settings, database: Database) -> None:
    settings.runner.threads = 3
    presence = Presence(database, settings, ["cpu"])
    presence.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    told: list[int | None] = []
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
        with database.session_scope() as session:
            told = list(session.scalars(select(WorkerRow.threads)))
    presence.stop()
    assert told == [3]
