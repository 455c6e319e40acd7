"""A runner that the kernel ends for lack of memory, in a control group with too little of it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from app.database import Database
from app.jobs.states import JobKind, JobState
from tests.app.jobs.factories import add_job, read_job
from tests.worker.attempts import inspect
from worker import control_groups
from worker.memory import EVENT_FILES
from worker.sandbox import memory_groups
from worker.supervisor import Supervisor

# The runner's own limit is that of the group, of which the supervisor takes a part: the kernel comes first.
GROUP_BYTES = 384 << 20
SUPERVISE = """
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
import uuid
from app.config import Settings
from app.database import Database
from app.storage import Storage
from worker import supervisor
from worker.stop import Stop
hungry = "eaten = []\\nwhile True: eaten.append(b'x' * (8 << 20))"
supervisor.RUNNER = (sys.executable, "-P", "-c", hungry)
settings = Settings()
supervisor.Supervisor(settings, Database(settings), Storage(settings), Stop()).run(uuid.UUID(sys.argv[2]))
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, where this process may make one."""
    folders = control_groups.folders("memory")
    around = [folder for folder in folders if any((folder / name).exists() for name in EVENT_FILES)]
    if not around:
        pytest.skip("no control group counts kills here")
    folder = around[0] / f"lathe-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        limit = next(
            (folder / name for name in ("memory.max", "memory.limit_in_bytes") if (folder / name).exists()), None
        )
        if limit is None:
            pytest.skip("memory is not delegated to control groups here")
        limit.write_text(str(GROUP_BYTES))
        yield folder
    finally:
        deadline = time.monotonic() + 10
        while folder.exists() and time.monotonic() < deadline:
            with suppress(OSError):  # what was killed in it takes a moment to go
                folder.rmdir()


def test_a_runner_that_the_kernel_ended_is_out_of_memory_and_not_tried_again(
    small_group: Path, environment: dict[str, str], database: Database, model: UUID
) -> None:
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model, max_attempts=3)
    subprocess.run([sys.executable, "-c", SUPERVISE, str(small_group), str(job_id)], env=environment, check=True)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None and job.error["code"] == "out_of_memory"


# Less than the limit each, and more than it together; whichever the kernel ends, the runner leaves no result.
TOGETHER = """
pid = os.fork()
eaten = bytearray(160 << 20)
os.waitpid(pid, 0) if pid else time.sleep(60)
"""


def test_processes_of_a_runner_that_hold_too_much_together_are_out_of_memory(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None]
) -> None:
    home = memory_groups.home_of_groups()
    if home is None:
        pytest.skip("no control group can be made here")
    supervisor.settings.runner.memory_bytes = 256 << 20
    runner(TOGETHER)
    job_id = inspect(supervisor, database, model)
    job = read_job(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None and job.error["code"] == "out_of_memory"
    assert job.peak_memory_bytes is None or 200 << 20 < job.peak_memory_bytes <= 256 << 20
    assert list(home.glob(f"{memory_groups.PREFIX}{os.getpid()}-*")) == []
