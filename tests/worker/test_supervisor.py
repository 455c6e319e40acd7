"""One attempt at one job, with a real runner in its sandbox: however it goes, the job ends in the right state."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import func, select, text

from app.artifacts.tables import ArtifactRow
from app.blobs.tables import BlobRow
from app.database import Database
from app.datasets.tables import DatasetRow
from app.errors import OUR_FAULTS
from app.jobs import lease
from app.jobs.states import JobKind, JobState
from app.jobs.subjects import SUBJECT
from app.jobs.tables import JobDatasetRow, JobEventRow, MeasurementRow, ReportRow
from app.models.tables import ModelRow
from tests.app.jobs.factories import add_job, read_job
from tests.worker import networks
from tests.worker.attempts import add_optimization, inspect, read_model, runners_left
from tests.worker.uploads import npz, store_upload
from worker import written
from worker.listener import MAX_EVENTS
from worker.memory import affordable_bytes
from worker.supervisor import Supervisor

# What a Python process without any model has at the least.
RUNNER_FLOOR_BYTES = 8 << 20


def test_an_inspection_makes_a_model_ready(supervisor: Supervisor, database: Database, model: UUID) -> None:
    job_id = inspect(supervisor, database, model)
    row = read_model(database, model)
    assert (read_job(database, job_id).state, row.status) == (JobState.SUCCEEDED, "ready")
    assert row.inspection is not None and row.inspection["parameter_count"] == networks.CONVNET_PARAMETERS
    assert not list(supervisor.settings.work_folder.glob("[!.]*"))


def test_an_inspection_rejects_what_is_no_model(supervisor: Supervisor, database: Database, tmp_path: Path) -> None:
    model = store_upload(database, supervisor.storage, ModelRow, b"\x80\x04no model at all", tmp_path)
    job_id = inspect(supervisor, database, model)
    row, job = read_model(database, model), read_job(database, job_id)
    assert (job.state, job.attempt, row.status) == (JobState.FAILED, 1, "rejected")
    assert job.error is not None and row.problem == job.error
    assert job.peak_memory_bytes is not None and RUNNER_FLOOR_BYTES < job.peak_memory_bytes < 1 << 30


def test_a_job_delivers_its_artifact_its_report_and_its_figures(
    supervisor: Supervisor, database: Database, model: UUID, tmp_path: Path
) -> None:
    inspect(supervisor, database, model)
    images = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)
    dataset = store_upload(database, supervisor.storage, DatasetRow, npz(image=images), tmp_path, status="ready")
    request = {
        "model_id": str(model),
        "recipe": [{"pass": "optimize_graph"}, {"pass": "quantize_static"}],
        "data": {"calibration": str(dataset), "evaluation": str(dataset)},
        "metric": {"name": "agreement", "output": "logits"},
        "target": {"device": "cpu", "threads": 1},
    }
    job_id = add_job(database, model_id=model, request=request, budget_seconds=60.0)
    with database.session_scope() as session:
        for role in ("calibration", "evaluation"):
            session.add(JobDatasetRow(job_id=job_id, role=role, dataset_id=dataset))
    supervisor.run(job_id)

    job = read_job(database, job_id)
    assert job.state == JobState.SUCCEEDED, job.error
    assert (job.progress, job.verdict and job.verdict["outcome"]) == (1.0, "no_contract")
    assert job.peak_memory_bytes is not None and RUNNER_FLOOR_BYTES < job.peak_memory_bytes < 4 << 30
    with database.session_scope() as session:
        artifacts = session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == job_id)).all()
        assert {each.kind for each in artifacts} == {"model", "manifest"}
        report = session.get_one(ReportRow, job_id).body
        figures = session.scalars(select(MeasurementRow).where(MeasurementRow.job_id == job_id)).all()
        phases = session.scalars(
            select(JobEventRow.data["phase"].astext).where(JobEventRow.job_id == job_id, JobEventRow.type == "phase")
        ).all()
    delivered = next(each for each in artifacts if each.kind == "model")
    assert report["candidates"][0]["sha256"] == delivered.sha256.hex()
    assert report["candidates"][0]["measurement"]["size_bytes"] == delivered.size_bytes
    between = report["steps"][0]["file"]
    by_subject = {
        subject: {each.metric: each.value for each in figures if each.subject == subject}
        for subject in {each.subject for each in figures}
    }
    name = "optimize_graph+quantize_static"
    assert by_subject.keys() == {"baseline", name, "step 1 optimize_graph", "step 2 quantize_static"}
    kept = by_subject["step 1 optimize_graph"]
    assert kept["latency_p50_ms"] == between["latency"]["p50_ms"]
    assert kept["latency_ratio"] == between["latency_ratio"]["value"]
    assert kept["agreement.logits"] == 1.0
    assert by_subject["step 2 quantize_static"].items() <= by_subject[name].items()
    assert phases[-2:] == ["measuring", "publishing"]
    fetched = tmp_path / "delivered.onnx"
    supervisor.storage.fetch(f"blobs/{delivered.workspace_id}/{delivered.blob_id}", fetched)
    assert fetched.stat().st_size == delivered.size_bytes


@dataclass
class Misdeed:
    id: str
    program: str
    code: str


MISDEEDS = [
    Misdeed("dies", "os.kill(os.getpid(), 9)", "runner_crashed"),
    Misdeed(
        "result-lacks-its-product",
        "(folder / 'result.json').write_text('{\"outcome\": \"succeeded\"}')",
        "runner_crashed",
    ),
    Misdeed("stderr-is-huge", "os.ftruncate(2, 1 << 34); os.lseek(2, 0, 0)", "runner_crashed"),
    Misdeed(
        "folder-is-closed",
        "os.mkdir(folder / 'x', 0); os.umask(0o777); os.makedirs(folder / 'y')",
        "runner_crashed",
    ),
    Misdeed("says-nothing", "sys.exit(0)", "runner_crashed"),
    Misdeed("result-is-a-link", "os.symlink('/etc/passwd', folder / 'result.json')", "runner_crashed"),
    Misdeed("result-is-a-pipe", "os.mkfifo(folder / 'result.json')", "runner_crashed"),
    Misdeed("result-is-noise", "(folder / 'result.json').write_bytes(os.urandom(1000))", "runner_crashed"),
    Misdeed("result-is-huge", "(folder / 'result.json').open('wb').truncate(1 << 30)", "runner_crashed"),
    Misdeed(
        "artifact-is-a-link",
        """
        os.symlink('/etc/passwd', folder / 'outputs' / 'a')
        artifact = dict(path='outputs/a', kind='model', file_name='a', media_type='x')
        (folder / 'result.json').write_text(json.dumps(dict(outcome='succeeded', artifacts=[artifact])))
        """,
        "runner_crashed",
    ),
    Misdeed(
        "artifact-is-elsewhere",
        """
        artifact = dict(path='outputs/../../../etc/passwd', kind='model', file_name='a', media_type='x')
        (folder / 'result.json').write_text(json.dumps(dict(outcome='succeeded', artifacts=[artifact])))
        """,
        "runner_crashed",
    ),
]


@pytest.mark.parametrize("case", MISDEEDS, ids=lambda case: case.id)
def test_a_broken_runner_is_tried_again_and_then_named(
    case: Misdeed, supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(case.program)
    job_id = inspect(supervisor, database, model, max_attempts=2)
    assert read_job(database, job_id).state == JobState.QUEUED
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
    assert job.error is not None and job.error["code"] == case.code
    assert not list(supervisor.settings.work_folder.glob("[!.]*"))
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(ArtifactRow)) == 0
        assert session.scalar(select(func.count()).select_from(BlobRow)) == 1  # the model's own


def test_a_file_that_crashes_its_reader_is_refused_at_once(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """An inspection reads the same file the same way each time: another attempt would only end a second runner."""
    runner("os.kill(os.getpid(), 11)")
    job = read_job(database, inspect(supervisor, database, model, max_attempts=3))
    assert (job.state, job.attempt, read_model(database, model).status) == (JobState.FAILED, 1, "rejected")
    assert job.error is not None and job.error["code"] == "model_crashes_reader"
    assert "SIGSEGV" in job.error["detail"]
    assert job.error["code"] not in OUR_FAULTS


def test_noise_on_the_event_pipe_harms_nothing(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(
        """
        pipe = int(os.environ['LATHE_EVENT_FD'])
        os.write(pipe, b'{"type": "phase", "phase": "looking"}\\n')
        os.write(pipe, b'x' * 300_000)
        fault = dict(code='bad', title='Bad', detail='a\\0b')
        (folder / 'result.json').write_text(json.dumps(dict(outcome='failed', fault=fault)))
        """
    )
    job = read_job(database, inspect(supervisor, database, model))
    assert job.state == JobState.FAILED
    assert job.error is not None and job.error["code"] == "bad"


def test_a_flood_of_events_is_cut_off(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    runner(
        """
        pipe = int(os.environ['LATHE_EVENT_FD'])
        for number in range(10_000):
            os.write(pipe, b'{"type": "phase", "phase": "flooding"}\\n')
        """
    )
    job_id = inspect(supervisor, database, model, max_attempts=1)
    with database.session_scope() as session:
        kept = session.scalar(select(func.count()).select_from(JobEventRow).where(JobEventRow.job_id == job_id))
    assert kept is not None and kept <= MAX_EVENTS + 2  # the states it began and ended in


def test_a_job_that_wants_more_threads_than_a_worker_has_is_left_to_another(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """Spinning threads without a core each would keep each other, and the queue, from getting anywhere."""
    runner("time.sleep(600)")
    supervisor.settings.runner.threads = 2
    job_id = add_optimization(database, model, threads=3)
    supervisor.run(job_id)
    assert (read_job(database, job_id).state, read_job(database, job_id).attempt) == (JobState.QUEUED, 0)
    with database.session_scope() as session:
        assert lease.claim(session, job_id, "a larger worker", 45.0, threads=3) is not None


def test_a_job_out_of_time_is_stopped_and_not_tried_again(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    supervisor.settings.runner.grace_seconds = 0.0
    runner("time.sleep(600)")
    job_id = add_optimization(database, model, budget_seconds=0.5)
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None and job.error["code"] == "time_limit"
    assert "budget_seconds" in job.error["remedy"]
    assert runners_left(supervisor) == []


def test_an_inspection_out_of_time_tells_to_upload_again_and_that_inspects_anew(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    supervisor.settings.runner.grace_seconds = 0.0
    runner("time.sleep(600)")
    job = read_job(database, inspect(supervisor, database, model, budget_seconds=0.5))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None and job.error["code"] in OUR_FAULTS
    assert "Upload" in job.error["remedy"]
    assert "budget" not in job.error["remedy"]


def test_a_runner_that_writes_more_than_it_may_is_ended_and_not_tried_again(
    supervisor: Supervisor,
    database: Database,
    model: UUID,
    runner: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel bounds each of its files; many of them would fill the disk of everybody's jobs."""
    monkeypatch.setattr(written, "LOOK_SECONDS", 0.1)
    supervisor.settings.runner.disk_bytes = 4 << 20
    runner(
        """
        for number in range(80):
            (folder / str(number)).write_bytes(os.urandom(1 << 16))
        time.sleep(600)
        """
    )
    job = read_job(database, inspect(supervisor, database, model, max_attempts=3))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None and job.error["code"] == "too_much_written"
    assert "4,194,304 bytes" in job.error["detail"]
    assert "LATHE_RUNNER_DISK_BYTES" in job.error["remedy"]
    assert runners_left(supervisor) == []
    assert not list(supervisor.settings.work_folder.glob("[!.]*"))


def test_a_runner_is_given_no_more_memory_than_there_is(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """What is beyond it the kernel would end by a kill, and the job would be tried again."""
    supervisor.settings.runner.memory_bytes = 1 << 60
    runner(
        """
        import resource
        told = json.loads((folder / 'job.json').read_text())['memory_bytes']
        fault = dict(code='told', title='Told', detail=f'{told} {resource.getrlimit(resource.RLIMIT_AS)[0]}')
        (folder / 'result.json').write_text(json.dumps(dict(outcome='failed', fault=fault)))
        """
    )
    job = read_job(database, inspect(supervisor, database, model))
    there_is = affordable_bytes(1 << 60)
    assert there_is < 1 << 60
    assert job.error is not None and job.error["detail"] == f"{there_is} {there_is}"


def test_a_job_that_no_disk_could_hold_ends_and_says_so(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    """It would be put off again and again, and each time gigabytes be copied until the disk is full."""
    runner("time.sleep(600)")
    with database.session_scope() as session:
        session.execute(text("UPDATE models SET size_bytes = :size"), {"size": 1 << 60})
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model, max_attempts=1)
    supervisor.run(job_id)
    job = read_job(database, job_id)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "disk_full"
    assert "LATHE_WORK_FOLDER" in job.error["remedy"]


def test_the_subject_of_a_dataset_inspection_becomes_ready(
    supervisor: Supervisor, database: Database, tmp_path: Path
) -> None:
    content = npz(image=np.zeros((3, 2), np.float32))
    dataset = store_upload(database, supervisor.storage, DatasetRow, content, tmp_path)
    job_id = add_job(database, kind=JobKind.INSPECT_DATASET)
    with database.session_scope() as session:
        session.add(JobDatasetRow(job_id=job_id, role=SUBJECT, dataset_id=dataset))
    supervisor.run(job_id)
    with database.session_scope() as session:
        row = session.get_one(DatasetRow, dataset)
    assert row.status == "ready", row.problem
    assert row.inspection == {
        "arrays": [{"name": "image", "dtype": "float32", "shape": [3, 2]}],
        "sample_count": 3,
    }
