"""A runner that cannot be started leaves a worker as it was."""

import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from app.database import Database
from app.jobs.states import JobState
from tests.app.jobs.factories import read_job
from tests.worker.attempts import inspect
from worker import sandbox
from worker import supervisor as supervising
from worker.supervisor import Supervisor


def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes no argument beyond 128 KiB (MAX_ARG_STRLEN)."""
    monkeypatch.setattr(supervising, "RUNNER", ("x" * (1 << 20),))


def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(limit_bytes: int) -> None:
        raise OSError(f"no group of {limit_bytes} bytes")

    monkeypatch.setattr(sandbox, "memory_group", refuse)


def pipes() -> int:
    """How many ends of pipes this process holds."""
    held = 0
    for one in Path("/proc/self/fd").iterdir():
        try:
            held += one.readlink().name.startswith("pipe:")
        except FileNotFoundError:  # that of the listing itself
            continue
    return held


@pytest.mark.parametrize("break_it", [no_start, no_group])
def test_a_runner_that_cannot_be_started_leaves_no_thread_and_no_descriptor(
    supervisor: Supervisor,
    database: Database,
    model: UUID,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[pytest.MonkeyPatch], None],
) -> None:
    break_it(monkeypatch)
    threads, held = threading.active_count(), pipes()
    job = read_job(database, inspect(supervisor, database, model, max_attempts=2))
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert (threading.active_count(), pipes()) == (threads, held)
