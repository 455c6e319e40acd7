"""Attempts that are broken off, and what becomes of their jobs: a cancel, a worker that stops, a lease that is lost."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from app.blobs.tables import storage_key
from app.database import Database
from app.jobs import lease, reaping
from app.jobs.states import JobKind, JobState
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job, read_job
from tests.worker.attempts import DELIVERY, read_model, runners, runners_left
from worker import delivery
from worker.supervisor import Supervisor

SLEEPER = """
os.fork()  # a child of its own, in another session
os.setsid() if os.getpid() != os.getpgrp() else None
(folder / f'alive-{os.getpid()}').touch()
time.sleep(600)
"""


@pytest.fixture
def running(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> Iterator[tuple[UUID, threading.Thread]]:
    """A job whose runner sleeps, in a thread of its own."""
    runner(SLEEPER)
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model)
    thread = threading.Thread(target=supervisor.run, args=[job_id])
    thread.start()
    deadline = time.monotonic() + 20
    while not list(supervisor.settings.work_folder.glob("*/run/alive-*")):
        assert time.monotonic() < deadline, "the runner never came up"
        time.sleep(0.05)
    yield job_id, thread
    thread.join(20)
    assert not thread.is_alive()
    assert runners_left(supervisor) == []
    assert not list(supervisor.settings.work_folder.glob("[!.]*"))


def test_a_cancelled_job_is_stopped_with_all_its_children(
    running: tuple[UUID, threading.Thread], database: Database
) -> None:
    job_id, thread = running
    with database.session_scope() as session:
        assert lease.cancel(session, job_id, read_job(database, job_id).workspace_id) is JobState.RUNNING
    thread.join(20)
    assert read_job(database, job_id).state == JobState.CANCELLED


def test_a_worker_that_is_stopped_hands_its_job_back(
    running: tuple[UUID, threading.Thread], database: Database, supervisor: Supervisor
) -> None:
    job_id, thread = running
    supervisor.stopping.set()
    thread.join(20)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


def test_a_worker_that_is_stopped_while_it_fetches_hands_its_job_back(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """Files of gigabytes take longer to copy than whoever stops the worker will wait."""
    runner(SLEEPER)
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model)
    supervisor.stopping.set()
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert not list(supervisor.settings.work_folder.glob("[!.]*"))


class SilentStorage(Storage):
    """Takes a file, and says so once it is let."""

    asked: threading.Event
    answers: threading.Event

    def store(self, path: Path, key: str) -> None:
        super().store(path, key)
        self.asked.set()
        self.answers.wait(60)


@pytest.fixture
def silent(supervisor: Supervisor) -> Iterator[SilentStorage]:
    storage = SilentStorage(supervisor.settings)
    storage.asked, storage.answers = threading.Event(), threading.Event()
    supervisor.storage = storage
    yield storage
    storage.answers.set()


@contextmanager
def publishing(supervisor: Supervisor, database: Database, model: UUID, silent: SilentStorage) -> Iterator[UUID]:
    """A job whose result is on its way to storage; at the end of the block its attempt is over."""
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model)
    thread = threading.Thread(target=supervisor.run, args=[job_id])
    thread.start()
    assert silent.asked.wait(30)
    yield job_id
    thread.join(30)
    assert not thread.is_alive()


def test_a_worker_that_is_stopped_while_storage_is_silent_hands_its_job_back(
    supervisor: Supervisor,
    database: Database,
    model: UUID,
    silent: SilentStorage,
    runner: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off at the end of its grace it would be lost: an attempt spent, and the job idle until its lease is over."""
    monkeypatch.setattr(delivery, "CLOSING_SECONDS", 0.1)
    runner(DELIVERY)
    with publishing(supervisor, database, model, silent) as job_id:
        supervisor.stopping.set()
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert not list(supervisor.settings.work_folder.glob("[!.]*"))
    (storing,) = (thread for thread in threading.enumerate() if thread.name == f"store-{job_id}")
    assert storing.daemon, "the process would not end before storage answers"
    silent.answers.set()
    storing.join(30)
    assert read_job(database, job_id).version == job.version
    assert collect_garbage(database, silent, 0) == 1
    uploaded = read_model(database, model)
    assert uploaded.blob_id is not None
    assert [file.key for file in silent.list_sync("blobs")] == [storage_key(uploaded.workspace_id, uploaded.blob_id)]


def test_a_worker_that_is_stopped_at_the_end_of_its_publishing_delivers(
    supervisor: Supervisor, database: Database, model: UUID, silent: SilentStorage, runner: Callable[[str], None]
) -> None:
    """A run of hours is not thrown away for the seconds that its last file takes."""
    runner(DELIVERY)
    with publishing(supervisor, database, model, silent) as job_id:
        supervisor.stopping.set()
        time.sleep(0.3)  # some looks at whether there is time left
        silent.answers.set()
    assert read_job(database, job_id).state == JobState.SUCCEEDED


def test_a_supervisor_whose_lease_was_taken_writes_nothing(
    running: tuple[UUID, threading.Thread], database: Database
) -> None:
    job_id, thread = running
    with database.session_scope() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 s'"))
        reaping.reap(session, 0.0, queue_ttl_seconds=0.0)
        assert lease.claim(session, job_id, "another", 45.0) is not None
    before = read_job(database, job_id)
    thread.join(20)
    after = read_job(database, job_id)
    assert (after.version, after.lease_holder) == (before.version, "another")


def test_a_killed_runner_is_tried_again(
    running: tuple[UUID, threading.Thread], database: Database, supervisor: Supervisor
) -> None:
    job_id, thread = running
    _launcher, _first, command = runners(supervisor)[:3]
    os.kill(command.pid, signal.SIGKILL)
    thread.join(20)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
