"""What workers take from the queue, with real workers on a real broker."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
from anyio import to_thread

from app.config import Settings
from app.queue import WAKERS, Queue

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def queue_name() -> str:
    """A queue of this test's own."""
    return f"holding-{uuid4().hex}"


@pytest.fixture
def start_worker(environment: dict[str, str], queue_name: str, tmp_path: Path) -> Iterator[Start]:
    """Start a worker with one thread, whose jobs hold; see `tests/worker/holding.py`."""
    command = [sys.executable, "-m", "celery", "-A", "tests.worker.holding", "worker", "-Q", queue_name]
    options = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"]
    with ExitStack() as started:

        def start() -> "subprocess.Popen[bytes]":
            name = ["-n", uuid4().hex]
            process = subprocess.Popen([*command, *options, *name], env=environment | {"FOLDER": str(tmp_path)})
            started.callback(process.wait, 20)
            started.callback(process.kill)
            return process

        yield start


def holder_of(folder: Path, job_id: UUID) -> int:
    """The process that runs a job, as soon as one does."""
    path = folder / str(job_id)
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, "nobody took the job"
        time.sleep(0.02)
    return int(path.read_text())


def test_a_busy_worker_leaves_the_next_job_to_an_idle_one(
    settings: Settings, start_worker: Start, queue_name: str, tmp_path: Path
) -> None:
    queue = Queue(settings)
    first, second, third = (uuid4() for _ in range(3))
    busy = start_worker()
    queue.wake(first, queue_name, 1)
    assert holder_of(tmp_path, first) == busy.pid
    queue.wake(second, queue_name, 1)
    time.sleep(2.5)  # longer than Celery's loop waits at most: a worker that would take it has done so
    assert queue.depth(queue_name) == 1

    idle = start_worker()
    assert holder_of(tmp_path, second) == idle.pid
    queue.wake(third, queue_name, 1)
    (tmp_path / str(first)).unlink()
    assert holder_of(tmp_path, third) == busy.pid
    for path in tmp_path.iterdir():
        if path.is_file():
            path.unlink()
    queue.close()


class SilentQueue(Queue):
    """A queue whose broker answers nobody for as long as a test wants."""

    answers: threading.Event
    asked: list[UUID]

    def wake(self, job_id: UUID, queue: str, priority: int) -> bool:
        self.asked.append(job_id)
        self.answers.wait(30)
        return super().wake(job_id, queue, priority)


async def test_a_broker_that_says_nothing_holds_a_few_threads_and_no_others(
    settings: Settings, queue_name: str
) -> None:
    queue = SilentQueue(settings)
    queue.answers, queue.asked = threading.Event(), []
    woken: list[UUID] = []

    async def wake(job_id: UUID) -> None:
        await queue.wake_soon(job_id, queue_name, 1)
        woken.append(job_id)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(2 * WAKERS):
                group.start_soon(wake, uuid4())
            with anyio.fail_after(10):
                while len(woken) < WAKERS:  # noqa: ASYNC110 - those that give up tell nobody
                    await anyio.sleep(0.02)
            assert len(queue.asked) == WAKERS
            assert to_thread.current_default_thread_limiter().borrowed_tokens == 0
            queue.answers.set()
    finally:
        queue.answers.set()
    assert queue.depth(queue_name) == WAKERS
    queue.close()
