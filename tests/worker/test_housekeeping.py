"""Housekeeping on real servers: three at once, servers that are gone for a while, files that no row knows."""

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, select, text, update
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from app.blobs.mark import FOREIGN, KEY, mark
from app.blobs.tables import BlobRow, storage_key
from app.config import Settings
from app.database import Database
from app.datasets.tables import DatasetRow
from app.jobs import lease
from app.jobs.lease import Claim
from app.jobs.states import JobKind, JobState
from app.models.tables import ModelRow
from app.queue import Queue
from app.storage import Storage
from app.uploads.tables import ResumableUploadRow, UploadPartRow, part_key
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job, read_job
from tests.conftest import Services
from tests.worker.uploads import store_upload
from worker.collector import Collector
from worker.housekeeping import Housekeeper
from worker.publishing import publish, store_outputs
from worker.runner.contract import OUTPUT_FOLDER, OutputFile, RunnerResult

PAST = datetime.now(UTC) - timedelta(hours=1)
QUEUE = "cpu"


@pytest.fixture
def quick(settings: Settings) -> Settings:
    jobs = {
        "backoff_seconds": 0.0,
        "housekeeping_seconds": 0.02,
        "garbage_grace_seconds": 0.0,
        "republish_seconds": 3600.0,
    }
    return settings.model_copy(update={"jobs": settings.jobs.model_copy(update=jobs)})


@pytest.fixture
def storage(storage: Storage, database: Database) -> Storage:
    """The database's own, as a collector wants it to be."""
    mark(database, storage)
    return storage


def housekeeper(settings: Settings, database: Database) -> Housekeeper:
    return Housekeeper(settings, database, Queue(settings))


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    """The broker without what earlier tests left: a queue that is too long is not added to."""
    url = settings.redis_url.get_secret_value().replace("redis+socket://", "unix://")  # as redis-py spells it
    with redis.Redis.from_url(url) as client:
        for key in lists(client):
            client.delete(key)
        yield client


def lists(broker: redis.Redis) -> list[bytes]:
    """A queue has one for each priority: `cpu` and names that begin so."""
    return list(broker.scan_iter(f"{QUEUE}*"))


def published(broker: redis.Redis) -> Counter[UUID]:
    """How many messages each job has in the broker."""
    texts = [entry for key in lists(broker) for entry in broker.lrange(key, 0, -1)]
    bodies = [json.loads(base64.b64decode(json.loads(entry)["body"])) for entry in texts]
    return Counter(UUID(body[0][0]) for body in bodies)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def running(keeper: Housekeeper) -> Iterator[None]:
    """Rounds in a thread, which must be alive to the end."""
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=[stop])
    thread.start()
    try:
        yield
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(20)


def add_dead(database: Database, **columns: Any) -> UUID:
    """A job whose holder has been silent for longer than its lease."""
    dead = {"state": JobState.RUNNING, "fence": 1, "lease_holder": "gone:1", "lease_expires_at": PAST}
    return add_job(database, **(dead | {"attempt": 1, "max_attempts": 3} | columns))


def test_three_at_once_publish_each_job_once_and_end_each_rightly(
    database: Database, quick: Settings, broker: redis.Redis
) -> None:
    queued = [add_job(database, priority=number % 3) for number in range(20)]
    back = [add_dead(database, expires_at=PAST) for _ in range(10)]  # no longer than that it may have run
    lost = [add_dead(database, attempt=3) for _ in range(10)]
    cancelled = [add_dead(database, cancel_requested_at=PAST) for _ in range(5)]
    expired = [add_job(database, expires_at=PAST) for _ in range(10)]
    start = threading.Barrier(3)

    def tidy(keeper: Housekeeper) -> None:
        start.wait(10)
        for _ in range(3):
            keeper.tidy()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(tidy, [housekeeper(quick, database) for _ in range(3)]))

    assert published(broker) == dict.fromkeys([*queued, *back], 1)
    for jobs, state in (
        (queued, JobState.QUEUED),
        (back, JobState.QUEUED),
        (lost, JobState.FAILED),
        (cancelled, JobState.CANCELLED),
        (expired, JobState.EXPIRED),
    ):
        assert {read_job(database, job_id).state for job_id in jobs} == {state}
    assert all((read_job(database, job_id).error or {})["code"] == "worker_lost" for job_id in lost)


@contextmanager
def closed(servers: Services, database_url: str) -> Iterator[None]:
    """The database takes no new connection."""
    name = make_url(database_url).database
    server = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    server.dispose()


def test_rounds_without_a_database_are_survived(
    database: Database, quick: Settings, broker: redis.Redis, servers: Services, services: Services
) -> None:
    job_id = add_job(database)
    own = Database(quick)  # without a connection yet
    with capture_logs() as said, ExitStack() as stack:
        with closed(servers, services.database_url):
            stack.enter_context(running(housekeeper(quick, own)))
            wait(lambda: sum(entry["event"] == "round_failed" for entry in said) > 1)
        wait(lambda: published(broker)[job_id])
    own.dispose()
    assert published(broker)[job_id] == 1


@pytest.mark.parametrize(
    ("url", "event"),
    [("redis://127.0.0.1:1/0", "publishing_failed"), ("nonsense://nowhere", "round_broke")],
    ids=["does-not-answer", "raises"],
)
def test_rounds_without_a_broker_are_survived_and_the_jobs_published_later(
    database: Database, quick: Settings, broker: redis.Redis, url: str, event: str
) -> None:
    quick.jobs.republish_seconds = 0.0
    job_id = add_job(database)
    without = quick.model_copy(update={"redis_url": SecretStr(url)})
    with capture_logs() as said, running(housekeeper(without, database)):
        wait(lambda: sum(entry["event"] == event for entry in said) > 1)
    assert published(broker)[job_id] == 0
    housekeeper(quick, database).tidy()
    assert published(broker)[job_id] == 1


class FallingSilent(Queue):
    """A queue whose broker takes one message and then answers nobody."""

    asked: list[UUID]

    def wake(self, job_id: UUID, queue: str, priority: int) -> bool:
        self.asked.append(job_id)
        return len(self.asked) == 1 and super().wake(job_id, queue, priority)


def test_a_broker_that_falls_silent_within_a_round_is_waited_for_once(
    database: Database, quick: Settings, broker: redis.Redis
) -> None:
    quick.jobs.republish_seconds = 0.0
    jobs = [add_job(database) for _ in range(4)]
    queue = FallingSilent(quick)
    queue.asked = []
    Housekeeper(quick, database, queue).tidy()
    assert len(queue.asked) == 2
    assert published(broker).total() == 1
    housekeeper(quick, database).tidy()
    assert set(published(broker)) == set(jobs)


def stored(storage: Storage) -> set[str]:
    return {file.key for file in storage.list_sync("blobs")}


def test_a_file_without_a_row_is_collected_and_one_with_a_row_stays(
    database: Database, quick: Settings, storage: Storage, workspace_id: UUID, tmp_path: Path
) -> None:
    store_upload(database, storage, ModelRow, b"kept", tmp_path)
    kept = stored(storage)
    (tmp_path / "stray").write_bytes(b"stray")
    storage.store(tmp_path / "stray", storage_key(workspace_id, UUID(int=7)))
    Collector(quick, database, storage).collect()
    assert stored(storage) == kept


def test_nothing_is_collected_in_the_storage_of_another_database(
    database: Database, quick: Settings, storage: Storage, workspace_id: UUID, tmp_path: Path
) -> None:
    (tmp_path / "stray").write_bytes(b"stray")
    storage.store(tmp_path / "stray", storage_key(workspace_id, UUID(int=7)))
    storage.put_note_sync(KEY, b"another database's")
    collector = Collector(quick, database, storage)
    with capture_logs() as said:
        for _ in range(2):
            collector.collect()
    assert len(stored(storage)) == 1
    assert [(entry["event"], entry["reason"]) for entry in said] == [("storage_not_ours", FOREIGN)]
    mark(database, storage)
    collector.collect()
    assert stored(storage) == set()


def test_models_that_cannot_be_let_go_of_keep_no_dataset_and_no_garbage(
    database: Database, quick: Settings, storage: Storage, tmp_path: Path
) -> None:
    store_upload(database, storage, ModelRow, b"kept", tmp_path, status="ready")
    kept = stored(storage)
    dataset = store_upload(database, storage, DatasetRow, b"old", tmp_path, status="ready")
    with database.session_scope() as session:
        session.execute(update(DatasetRow).values(created_at=PAST - timedelta(days=2)))
        session.execute(update(BlobRow).values(touched_at=PAST - timedelta(days=2)))
    # So many days that Postgres has no moment before them.
    days = quick.retention.model_copy(update={"models_days": 10_000_000, "datasets_days": 1})
    with capture_logs() as said:
        Collector(quick.model_copy(update={"retention": days}), database, storage).collect()
    assert [entry["step"] for entry in said if entry["event"] == "collecting_failed"] == ["let_go_of_models"]
    with database.session_scope() as session:
        assert session.scalars(select(DatasetRow.id).where(DatasetRow.deleted_at.is_not(None))).all() == [dataset]
    assert stored(storage) == kept


def test_of_what_an_api_of_the_release_before_deleted_nothing_is_kept_that_was_read_in_it(
    database: Database, quick: Settings, storage: Storage, tmp_path: Path
) -> None:
    read: dict[str, Any] = {"status": "ready", "inspection": {"said": "much"}, "problem": {"code": "x"}}
    for table in (ModelRow, DatasetRow):
        for name in ("deleted", "alive"):
            store_upload(database, storage, table, f"{table} {name}".encode(), tmp_path, name=name, **read)
        with database.session_scope() as session:
            session.execute(update(table).where(table.name == "deleted").values(blob_id=None, deleted_at=PAST))
    Collector(quick, database, storage).collect()
    with database.session_scope() as session:
        for table in (ModelRow, DatasetRow):
            found = session.execute(select(table.name, table.inspection, table.problem)).all()
            assert {name: (said, problem) for name, said, problem in found} == {
                "deleted": (None, None),
                "alive": (read["inspection"], read["problem"]),
            }


def outputs_of(folder: Path) -> tuple[RunnerResult, Path]:
    """What a runner leaves: a model and a manifest."""
    (folder / OUTPUT_FOLDER).mkdir(parents=True)
    files = []
    for kind, name in (("model", "net.onnx"), ("manifest", "manifest.json")):
        (folder / OUTPUT_FOLDER / name).write_text(f"{kind} of {folder.name}")
        path = f"{OUTPUT_FOLDER}/{name}"
        output = {"path": path, "kind": kind, "file_name": name, "media_type": "application/octet-stream"}
        files.append(OutputFile.model_validate(output))
    return RunnerResult(outcome="succeeded", artifacts=files), folder


def claimed(database: Database) -> Claim:
    job_id = add_job(database, kind=JobKind.OPTIMIZE)
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "worker:1", 45.0)
    assert claim is not None
    return claim


def test_an_upload_that_nobody_went_on_with_is_deleted_with_its_bytes(
    database: Database, quick: Settings, storage: Storage, workspace_id: UUID, tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(b"part")
    files = {name: uuid7() for name in ("expired", "alive")}
    for name, file_id in files.items():
        storage.store(tmp_path / "part", part_key(file_id))
        with database.session_scope() as session:
            expires_at = PAST if name == "expired" else datetime.now(UTC) + timedelta(hours=1)
            common = {"workspace_id": workspace_id, "kind": "model", "name": name, "media_type": "x"}
            said = {"metadata_text": "", "size_bytes": 100, "offset_bytes": 4, "expires_at": expires_at}
            session.add(ResumableUploadRow(id=file_id, **common, **said))
            session.flush()
            session.add(UploadPartRow(upload_id=file_id, start_bytes=0, size_bytes=4, file_id=file_id))
    Collector(quick, database, storage).collect()
    assert [file.key for file in storage.list_sync("uploads")] == [part_key(files["alive"])]
    with database.session_scope() as session:
        assert session.scalars(select(ResumableUploadRow.name)).all() == ["alive"]


def test_what_a_worker_stored_before_it_was_killed_is_collected_and_what_it_published_stays(
    database: Database, storage: Storage, tmp_path: Path
) -> None:
    delivered, interrupted = claimed(database), claimed(database)
    result, folder = outputs_of(tmp_path / "delivered")
    outputs = store_outputs(storage, delivered, result, folder)
    with database.session_scope() as session:
        assert publish(session, delivered, result, outputs, 1.0) == []
    kept = stored(storage)
    assert len(kept) == 2
    store_outputs(storage, interrupted, *outputs_of(tmp_path / "interrupted"))
    assert len(stored(storage)) == 4
    assert collect_garbage(database, storage, 0) == 2
    assert stored(storage) == kept
    assert read_job(database, delivered.job_id).state == JobState.SUCCEEDED
