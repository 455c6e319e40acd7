"""Attempts whose storage is full, has lost something, or does not do as it is told."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from app.artifacts.tables import ArtifactRow
from app.blobs.collection import collect_garbage
from app.blobs.tables import storage_key
from app.database import Database
from app.errors import Unavailable
from app.jobs.states import JobState
from app.storage import Storage
from tests.app.jobs.factories import read_job
from tests.worker.attempts import add_optimization, inspect, read_model
from worker.supervisor import Supervisor

DELIVERY = """
facts = dict(inputs=[], outputs=[], opset=17, ir_version=9, domains={}, parameter_count=0, mac_count=None,
             operators={}, trainable=False)
artifact = dict(path='outputs/a', kind='manifest', file_name='a', media_type='x')
(folder / 'outputs' / 'a').write_text('the same bytes each time')
(folder / 'result.json').write_text(json.dumps(dict(outcome='succeeded', model=facts, artifacts=[artifact])))
"""


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


def test_a_worker_without_storage_hands_its_job_on_and_spends_no_attempt(
    supervisor: Supervisor, database: Database, model: UUID
) -> None:
    full = supervisor.settings.api.model_copy(update={"min_free_bytes": 1 << 62})
    supervisor.storage = Storage(supervisor.settings.model_copy(update={"api": full}))
    job_id = add_optimization(database, model)
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.attempt, job.error) == (JobState.QUEUED, 0, None)
    assert job.due_at > job.created_at


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
