"""A search that does not come to its end loses nothing of what it had found, whatever ended it."""

import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import onnxruntime as ort
import pytest
from sqlalchemy import select, text

from app.artifacts.tables import ArtifactRow
from app.blobs.tables import storage_key
from app.database import Database
from app.datasets.tables import DatasetRow
from app.jobs import lease, reaping
from app.jobs.states import JobState
from app.jobs.tables import JobDatasetRow, ReportRow
from tests.app.jobs.factories import add_job, events_of, read_job
from tests.worker import networks
from tests.worker.attempts import add_optimization
from tests.worker.uploads import npz, store_upload
from worker.supervisor import Supervisor

# What a runner does that searches, in short: two candidates, the second better.
SEARCH = """
pipe = int(os.environ['LATHE_EVENT_FD'])

def say(**event):
    os.write(pipe, json.dumps(event).encode() + b'\\n')

for number, gain in enumerate((0.5, 0.7)):
    found = dict(name=f'candidate {number}', recipe=['p'], outcome='tried', explanation='', seconds=1.0, drop=NAN)
    (folder / 'best' / f'{number}.onnx').write_bytes(b'model %d' % number)
    say(type='trial', trial=found)
    say(type='best', best=dict(
        file=f'{number}.onnx', file_name=f'net-{number}.onnx', media_type='x', gain=gain, trial=found
    ))
"""
SEARCH = SEARCH.replace("NAN", "float('nan')")  # a metric that is not finite harms nothing


@dataclass
class End:
    id: str
    program: str
    state: JobState
    code: str | None


ENDS = [
    End("runner-dies", "os.kill(os.getpid(), 9)", JobState.FAILED, "runner_crashed"),
    End("out-of-time", "time.sleep(600)", JobState.FAILED, "time_limit"),
    End(
        "runner-fails",
        """
        fault = dict(code='out_of_memory', title='Memory', detail='None is left.')
        (folder / 'result.json').write_text(json.dumps(dict(outcome='failed', fault=fault)))
        """,
        JobState.FAILED,
        "out_of_memory",
    ),
]


def kept(supervisor: Supervisor, database: Database, job_id: UUID) -> list[tuple[str, int]]:
    """Names of a job's files, all of them in storage, and their sizes."""
    with database.session_scope() as session:
        rows = session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == job_id)).all()
    for row in rows:
        assert supervisor.storage.holds_sync(storage_key(row.workspace_id, row.blob_id), row.size_bytes)
    return [(row.file_name, row.size_bytes) for row in rows]


def told(database: Database, job_id: UUID) -> list[str]:
    """Names of the candidates that the events tell of."""
    return [one["name"] for one in trials(database, job_id)]


def trials(database: Database, job_id: UUID) -> list[dict[str, Any]]:
    """What the events tell of each candidate."""
    return [data["trial"] for data in events_of(database, job_id, "trial")]


@pytest.mark.parametrize("case", ENDS, ids=lambda case: case.id)
def test_the_best_and_every_trial_outlive_a_job_that_fails(
    case: End, supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    supervisor.settings.runner.grace_seconds = 2.0
    runner(SEARCH + textwrap.dedent(case.program))
    job_id = add_optimization(database, model, budget_seconds=0.5, max_attempts=1)
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.error and job.error["code"]) == (case.state, case.code)
    assert kept(supervisor, database, job_id) == [("net-1.onnx", 7)]
    assert told(database, job_id) == ["candidate 0", "candidate 1"]


@contextmanager
def running_until_kept(supervisor: Supervisor, database: Database, job_id: UUID, name: str = "") -> Iterator[None]:
    """Run the job in a thread until it has kept a file whose name has that in it; it is cancelled behind the block."""
    thread = threading.Thread(target=supervisor.run, args=[job_id])
    thread.start()
    deadline = time.monotonic() + 120
    while not any(name in file for file, _ in kept(supervisor, database, job_id)):
        assert thread.is_alive() and time.monotonic() < deadline, "nothing was kept"
        time.sleep(0.05)
    try:
        assert read_job(database, job_id).state == JobState.RUNNING
        yield
    finally:
        with database.session_scope() as session:
            lease.cancel(session, job_id, read_job(database, job_id).workspace_id)
        thread.join(20)
    assert not thread.is_alive()


def test_the_best_and_every_trial_outlive_a_cancel(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(SEARCH + "time.sleep(600)")
    job_id = add_optimization(database, model, budget_seconds=60.0)
    with running_until_kept(supervisor, database, job_id, "net-1"):
        pass  # and cancel it
    assert read_job(database, job_id).state == JobState.CANCELLED
    assert kept(supervisor, database, job_id) == [("net-1.onnx", 7)]
    assert told(database, job_id) == ["candidate 0", "candidate 1"]


def test_a_worker_that_is_lost_costs_nothing_that_was_found(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(SEARCH + "time.sleep(600)")
    job_id = add_optimization(database, model, budget_seconds=60.0, max_attempts=2)
    with running_until_kept(supervisor, database, job_id, "net-1"), database.session_scope() as session:
        # As housekeeping does with the lease of a worker that stopped answering.
        session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 s'"))
        assert [lost.state for lost in reaping.reap(session, 0.0, queue_ttl_seconds=0.0)] == [JobState.QUEUED]
    assert read_job(database, job_id).state == JobState.CANCELLED
    assert kept(supervisor, database, job_id) == [("net-1.onnx", 7)]


@pytest.mark.long
def test_what_a_search_had_found_when_it_was_cancelled_is_a_model_that_runs(
    supervisor: Supervisor, database: Database, model: UUID, tmp_path: Path
) -> None:
    images = networks.normal(400, 3, 16, 16)
    dataset = store_upload(database, supervisor.storage, DatasetRow, npz(image=images), tmp_path, status="ready")
    request = {
        "model_id": str(model),
        "recipe": "auto",
        "objective": "size",  # what is smaller is so on a busy machine as well
        "contract": {"max_drop": 0.5},
        "metric": {"name": "agreement", "output": "logits"},
        "search": {"passes": ["quantize_weights", "quantize_dynamic", "quantize_static", "convert_float16"]},
        "data": {"evaluation": str(dataset)},
        "target": {"device": "cpu", "threads": 1},
    }
    job_id = add_job(database, model_id=model, request=request, budget_seconds=300.0)
    with database.session_scope() as session:
        session.add(JobDatasetRow(job_id=job_id, role="evaluation", dataset_id=dataset))
    with running_until_kept(supervisor, database, job_id):
        pass  # and cancel it
    assert read_job(database, job_id).state == JobState.CANCELLED
    with database.session_scope() as session:
        row = session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == job_id)).one()
    assert row.trial is not None
    assert row.trial["holds"] is True
    assert row.trial["name"] in told(database, job_id)
    supervisor.storage.fetch(storage_key(row.workspace_id, row.blob_id), tmp_path / row.file_name)
    original = len(networks.convnet().SerializeToString())
    assert row.size_bytes == pytest.approx(original / row.trial["size_ratio"])
    assert row.size_bytes < original
    delivered = ort.InferenceSession(tmp_path / row.file_name, providers=["CPUExecutionProvider"])
    (scores,) = delivered.run(None, {"image": images[:2]})
    assert np.isfinite(scores).all()


@pytest.mark.long
def test_the_next_search_goes_on_from_what_a_cancelled_one_had_finished(
    supervisor: Supervisor, database: Database, model: UUID, tmp_path: Path
) -> None:
    images = npz(image=networks.normal(400, 3, 16, 16))
    dataset = store_upload(database, supervisor.storage, DatasetRow, images, tmp_path, status="ready")

    def add(budget_seconds: float, max_trials: int) -> UUID:
        request = {
            "model_id": str(model),
            "recipe": "auto",
            "objective": "size",  # what is smaller is so on a busy machine as well
            "contract": {"max_drop": 0.5},
            "metric": {"name": "agreement", "output": "logits"},
            "search": {"passes": ["quantize_weights", "convert_float16"], "max_trials": max_trials},
            "data": {"evaluation": str(dataset)},
            "target": {"device": "cpu", "threads": 1},
        }
        job_id = add_job(database, model_id=model, request=request, budget_seconds=budget_seconds)
        with database.session_scope() as session:
            session.add(JobDatasetRow(job_id=job_id, role="evaluation", dataset_id=dataset))
        return job_id

    cancelled = add(300.0, 32)
    with running_until_kept(supervisor, database, cancelled):
        pass  # and cancel it
    assert read_job(database, cancelled).state == JobState.CANCELLED
    following = add(90.0, 2)
    supervisor.run(following)
    assert read_job(database, following).state == JobState.SUCCEEDED
    with database.session_scope() as session:
        body = session.scalars(select(ReportRow.body).where(ReportRow.job_id == following)).one()
    before, now = trials(database, cancelled), body["search"]["trials"]
    finished = {one["name"] for one in before if one["outcome"] != "failed"}
    assert finished
    assert {one["name"] for one in now if one["cached"]} == finished & {one["name"] for one in now}
    assert any(one["cached"] for one in now)
