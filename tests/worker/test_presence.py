"""What a worker tells of itself."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from app.config import Settings
from app.database import Database
from app.health.tables import WorkerRow
from worker import presence as presence_module
from worker.presence import Presence

PATIENCE_SECONDS = 60.0  # it tries the sandbox first


def test_a_worker_says_how_many_threads_it_gives_a_model(settings: Settings, database: Database) -> None:
    settings.runner.threads = 3
    presence = Presence(database, settings, ["cpu"])
    presence.start()
    told = wait_for_threads(database)
    presence.stop()
    assert told == [3]


def test_a_worker_goes_on_announcing_itself_whatever_its_sweeping_meets(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[Path] = []

    def broken(base: Path) -> int:
        met.append(base)
        raise RecursionError

    monkeypatch.setattr(presence_module, "sweep", broken)
    monkeypatch.setattr(presence_module, "ANNOUNCE_SECONDS", 0.05)
    presence = Presence(database, settings, ["cpu"])
    presence.start()
    wait_for(lambda: bool(met))
    with database.session_scope() as session:
        session.execute(delete(WorkerRow))
    told = wait_for_threads(database)
    presence.stop()
    assert len(told) == 1


def wait_for_threads(database: Database) -> list[int | None]:
    """What the workers there are say of their threads, as soon as one says something."""
    told: list[int | None] = []

    def asked() -> bool:
        with database.session_scope() as session:
            told[:] = session.scalars(select(WorkerRow.threads))
        return bool(told)

    wait_for(asked)
    return told


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
