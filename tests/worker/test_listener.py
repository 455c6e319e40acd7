"""What is kept of a runner's progress: every value in the job's row, and only what a reader would notice as events."""

import json
import os
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from app.database import Database
from app.jobs import lease
from tests.app.jobs.factories import add_job, events_of, read_job
from worker.listener import Listener

Say = Callable[[float], None]


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


@pytest.fixture
def say(database: Database, job_id: UUID) -> Iterator[Say]:
    """`say(progress)`: have a runner say it, and wait until the job's row shows it."""
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "test", 45.0)
    assert claim is not None
    read_end, write_end = os.pipe()
    listener = Listener(
        claim,
        read_end,
        on_checkpoint=lambda step, name: None,
        on_best=lambda best: None,
        on_piece=lambda piece: None,
    )

    def tell(progress: float) -> None:
        os.write(write_end, json.dumps({"type": "progress", "progress": progress}).encode() + b"\n")
        deadline = time.monotonic() + 10
        while read_job(database, job_id).progress != progress:
            assert time.monotonic() < deadline, f"{progress} was not heard"
            listener.flush(database, force=True)

    yield tell
    os.close(write_end)
    listener.close()


def told(database: Database, job_id: UUID) -> list[float]:
    return [data["progress"] for data in events_of(database, job_id, "progress")]


def test_progress_becomes_an_event_when_it_went_visibly_on(database: Database, job_id: UUID, say: Say) -> None:
    for progress in (0.0, 0.001, 0.002, 0.05, 0.051, 0.059, 0.061, 0.0615):
        say(progress)
    assert told(database, job_id) == [0.0, 0.05, 0.061]


def test_progress_that_stands_still_is_repeated_now_and_then(
    database: Database, job_id: UUID, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(0.5)
    say(0.501)
    monkeypatch.setattr("worker.listener.REPEAT_SECONDS", 0.0)
    say(0.502)
    assert told(database, job_id) == [0.5, 0.502]
