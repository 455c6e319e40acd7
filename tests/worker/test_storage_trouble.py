"""Attempts whose storage is full, has lost something, or does not do as it is told; and a database that goes away."""

import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import URL, create_engine, func, make_url, select, text, update
from structlog.testing import capture_logs

from app.artifacts.tables import ArtifactRow
from app.blobs.tables import storage_key
from app.database import Database
from app.errors import StorageFull, Unavailable
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobEventRow, JobRow
from app.models.tables import ModelRow
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job, read_job
from tests.worker.attempts import DELIVERY, add_optimization, inspect, read_model
from worker.engine.faults import NO_ROOM
from worker.held import FREE_REPEATS, LONGEST_SHORTAGE_SECONDS
from worker.supervisor import Supervisor


def test_delivering_the_same_bytes_repairs_those_that_storage_lost(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None], tmp_path: Path
) -> None:
    runner(DELIVERY)
    for _ in range(2):
        inspect(supervisor, database, model)
        with database.session_scope() as session:
            delivered = session.scalars(select(ArtifactRow)).all()
        keys = {storage_key(each.workspace_id, each.blob_id) for each in delivered}
        assert len(keys) == 1
        supervisor.storage.fetch(*keys, tmp_path / "fetched")
        supervisor.storage.delete_sync(*keys)
    assert len(delivered) == 2


class StorageThatKeeps(Storage):
    """Storage that takes bytes, and does not answer when some are to go."""

    def delete_sync(self, key: str) -> None:
        raise Unavailable(f"{key} stays.")


def test_a_second_copy_that_cannot_be_deleted_is_left_to_the_collector(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(DELIVERY)
    supervisor.storage = StorageThatKeeps(supervisor.settings)
    with capture_logs() as said:
        jobs = [inspect(supervisor, database, model) for _ in range(2)]
    assert [read_job(database, job_id).state for job_id in jobs] == [JobState.SUCCEEDED] * 2
    assert "attempt_broke" not in {entry["event"] for entry in said}
    assert collect_garbage(database, Storage(supervisor.settings), 0) == 1


def test_a_worker_without_storage_hands_its_job_on_unrun_and_spends_no_attempt(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner('os.write(int(os.environ[\'LATHE_EVENT_FD\']), b\'{"type": "phase", "phase": "running"}\\n\')')
    with database.session_scope() as session:
        # As large as the disk is, of which some is taken.
        most = shutil.disk_usage(supervisor.settings.work_folder.parent).total
        session.execute(update(ModelRow).values(size_bytes=most))
    job_id = add_optimization(database, model)
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.attempt, job.error) == (JobState.QUEUED, 0, None)
    assert job.due_at > job.created_at
    assert "phase" not in events_of(database, job_id)


def test_a_runner_that_found_no_room_for_its_result_spends_no_attempt(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """What others wrote there passes; three runs in the seconds that it lasts would end the job."""
    runner(f"os._exit({NO_ROOM})")
    job = read_job(database, inspect(supervisor, database, model, max_attempts=1))
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


def test_a_job_waits_longer_each_time_that_it_meets_the_same_shortage(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(DELIVERY)
    supervisor.storage = StorageThatFills(supervisor.settings)
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model)
    supervisor.settings.jobs.backoff_seconds = 10.0
    waits = []
    for _ in range(4):
        with database.session_scope() as session:
            session.execute(update(JobRow).values(due_at=func.now()))
        supervisor.run(job_id)
        with database.session_scope() as session:
            left = session.scalars(select(JobRow.due_at - func.clock_timestamp()).where(JobRow.id == job_id)).one()
        waits.append(left.total_seconds())
    assert waits == pytest.approx([10, 20, 40, LONGEST_SHORTAGE_SECONDS], abs=5)


@pytest.mark.parametrize("newer", [{"hurry": None}, {"recipe": [{"pass": "melt"}]}], ids=["field", "pass"])
def test_a_request_of_another_version_waits_for_its_worker_and_spends_no_attempt(
    supervisor: Supervisor, database: Database, model: UUID, newer: dict[str, Any]
) -> None:
    """What it waits is its own time: should no such worker come, it expires."""
    job_id = add_optimization(database, model, max_attempts=1, expires_at=datetime.now(UTC) + timedelta(hours=1))
    before = read_job(database, job_id)
    with database.session_scope() as session:
        session.execute(update(JobRow).values(request=(before.request or {}) | newer))
    supervisor.settings.jobs.backoff_seconds = 10.0
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.attempt, job.error) == (JobState.QUEUED, 0, None)
    assert job.due_at >= before.due_at + timedelta(seconds=10)
    assert job.expires_at == before.expires_at
    with database.session_scope() as session:
        reasons = session.scalars(select(JobEventRow.data["reason"].astext).where(JobEventRow.job_id == job_id))
        assert "The worker lacked the version that reads the request (UnreadableRequest)." in set(reasons)


def events_of(database: Database, job_id: UUID) -> set[str]:
    with database.session_scope() as session:
        return set(session.scalars(select(JobEventRow.type).where(JobEventRow.job_id == job_id)))


class StorageThatFills(Storage):
    """Storage that has room when a job starts, and none when it ends."""

    def store(self, path: Path, key: str) -> None:
        raise StorageFull(f"No room for {path.name} as {key}.")


CROWDED = """
fault = dict(code='disk_full', title='Full', detail='There was no room.', remedy='Free some.')
(folder / 'result.json').write_text(json.dumps(dict(outcome='failed', fault=fault, retryable=True)))
"""


@pytest.mark.parametrize(
    ("script", "code"),
    [pytest.param(DELIVERY, "storage_full", id="storage"), pytest.param(CROWDED, "disk_full", id="work folder")],
)
def test_a_run_without_room_is_made_again_a_few_times_and_then_at_the_cost_of_attempts(
    script: str, code: str, supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """What fills a disk may be gone in a minute; should it be the job itself, it comes to an end."""
    runner(script)
    supervisor.storage = StorageThatFills(supervisor.settings)
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model, max_attempts=2)
    seen = []
    for _ in range(FREE_REPEATS + 2):
        with database.session_scope() as session:
            session.execute(update(JobRow).values(due_at=func.now()))
        supervisor.run(job_id)
        job = read_job(database, job_id)
        seen.append((job.state, job.attempt))
    assert seen == [(JobState.QUEUED, 0)] * FREE_REPEATS + [(JobState.QUEUED, 1), (JobState.FAILED, 2)]
    assert job.error is not None and job.error["code"] == code


class StorageOfAnOutage(Storage):
    """Storage that gives what is asked for, whereupon the database takes nobody for a while, as when it restarts."""

    SECONDS = 1.0  # a tenth of the lease, so that who waits still holds it
    outages: int
    database_url: URL

    def fetch(self, key: str, path: Path, going_on: Callable[[], None] = lambda: None) -> None:
        super().fetch(key, path, going_on)
        if self.outages > 0:
            self.outages -= 1
            self._admit(False)
            threading.Timer(self.SECONDS, self._admit, [True]).start()

    def _admit(self, admitted: bool) -> None:
        server = create_engine(self.database_url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        name = self.database_url.database
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {admitted}"))
            if not admitted:
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
                connection.execute(text(ended), {"name": name})
        server.dispose()


def test_a_database_that_goes_away_before_the_runner_starts_spends_no_attempt(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(DELIVERY)
    storage = StorageOfAnOutage(supervisor.settings)
    storage.outages = 3
    storage.database_url = make_url(supervisor.settings.database_url.get_secret_value())
    supervisor.storage = storage
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model, max_attempts=1)
    seen = []
    for _ in range(4):
        supervisor.run(job_id)
        job = read_job(database, job_id)
        seen.append((job.state, job.attempt, job.error))
    assert seen == [(JobState.QUEUED, 0, None)] * 3 + [(JobState.SUCCEEDED, 1, None)]


@pytest.mark.parametrize("left", [b"something else", None], ids=["changed", "gone"])
def test_what_storage_does_not_give_back_is_named_and_not_run(
    supervisor: Supervisor, database: Database, model: UUID, tmp_path: Path, left: bytes | None
) -> None:
    row = read_model(database, model)
    key = f"blobs/{row.workspace_id}/{row.blob_id}"
    supervisor.storage.delete_sync(key)
    if left is not None:
        (tmp_path / "left").write_bytes(left)
        supervisor.storage.store(tmp_path / "left", key)
    job = read_job(database, inspect(supervisor, database, model, max_attempts=1))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == ("content_missing" if left is None else "content_corrupt")
    assert "convnet" in job.error["detail"]
    assert "Upload the same file again" in job.error["remedy"]
    assert read_model(database, model).status == "rejected"
