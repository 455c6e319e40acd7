"""Runner jobs around a file, as the supervisor would prepare them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from app.jobs.states import JobKind
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from worker.runner.__main__ import run_job
from worker.runner.contract import JOB_FILE, RESULT_FILE, InputFile, RunnerJob, RunnerResult
from worker.runner.events import Events

INPUT = "input"
MEMORY_BYTES = 1 << 30


def prepare(kind: JobKind, workdir: Path, media_type: str) -> RunnerJob:
    """The job for the file that lies at `workdir / INPUT`, as `job.json` and as an object."""
    path = workdir / INPUT
    size = path.stat().st_size
    # Nothing in the runner looks at the hash; of files made of holes it would take seconds.
    sha256 = hashlib.sha256(path.read_bytes() if size < 1 << 24 else b"").hexdigest()
    file = InputFile(path=INPUT, media_type=media_type, sha256=sha256, size_bytes=size, name="upload")
    job = RunnerJob(
        kind=kind,
        model=file if kind is JobKind.INSPECT_MODEL else None,
        datasets={"dataset": file} if kind is JobKind.INSPECT_DATASET else {},
        threads=1,
        timing_rounds=TIMING_ROUNDS,
        round_seconds=ROUND_SECONDS,
        budget_seconds=60,
        memory_bytes=MEMORY_BYTES,
    )
    (workdir / JOB_FILE).write_text(job.model_dump_json())
    return job


def run_here(kind: JobKind, workdir: Path, media_type: str) -> RunnerResult:
    """The result of the job, in this process."""
    return run_job(prepare(kind, workdir, media_type), workdir, Events())


def start(workdir: Path, event_fd: int | None = None) -> subprocess.Popen[bytes]:
    """The runner as the supervisor starts it: in its own session, with next to no environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])}
    if event_fd is not None:
        environment["LATHE_EVENT_FD"] = str(event_fd)
    return subprocess.Popen(
        [sys.executable, "-m", "worker.runner", str(workdir)],
        env=environment,
        start_new_session=True,
        pass_fds=() if event_fd is None else (event_fd,),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run_child(kind: JobKind, workdir: Path, media_type: str) -> RunnerResult:
    """The result of the job, in a runner of its own."""
    prepare(kind, workdir, media_type)
    with start(workdir) as child:
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors.decode()
    return RunnerResult.model_validate_json((workdir / RESULT_FILE).read_bytes())
