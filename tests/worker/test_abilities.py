"""Who can train trains, and a job that trains waits for nobody else: with real workers on a real broker.

No housekeeping runs here. A wake-up that ended at a worker which cannot take its job would not come again, and the job
would never run.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.config import Settings
from app.database import Database
from app.jobs.tables import JobRow
from app.recipes.catalogue import CATALOGUE
from tests.live_api import LiveApi
from tests.worker import networks
from worker.abilities import can_train, passes_served

Headers = dict[str, str]
Start = Callable[..., int]
PATIENCE_SECONDS = 90.0
# Busy for as long as that: who takes it is all that is asked.
PLAIN: dict[str, Any] = {"recipe": [{"pass": "optimize_graph"}], "budget_seconds": 5}
# Gradients of the model's own answers: it needs torch, and no data.
TRAINS: dict[str, Any] = {
    "recipe": [{"pass": "prune_structured", "ratio": 0.5, "importance": "fisher"}],
    "budget_seconds": 20,
}


@pytest.mark.parametrize(
    ("trains", "found", "expected"),
    [("auto", True, True), ("auto", False, False), ("no", True, False)],
    ids=["torch", "no-torch", "told-not-to"],
)
def test_a_worker_trains_where_torch_is_installed_unless_it_is_told_not_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, trains: Any, found: bool, expected: bool
) -> None:
    settings.worker.trains = trains
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if found else None)
    assert can_train(settings) is expected
    missing = {name for name in CATALOGUE if name not in passes_served(settings, ["cpu"])}
    assert missing == (set() if expected else {"distill", "fine_tune", "quantize_aware_training"})
    assert passes_served(settings, ["inspect"]) == []


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def start_worker(environment: dict[str, str]) -> Iterator[Start]:
    """`start_worker(queue, **environment)`: a worker as the service has it; its process id."""
    options = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"]
    with ExitStack() as started:

        def start(queue: str, **more: str) -> int:
            command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker", *options, "-Q", queue]
            process = subprocess.Popen([*command, "-n", f"{len(more)}-{queue}@%h"], env=environment | more)
            started.callback(process.wait, 20)
            started.callback(process.terminate)
            return process.pid

        yield start


class Caller:
    """Somebody who submits jobs for one model, and an operator who sees who takes them."""

    def __init__(self, client: httpx.Client, headers: Headers, database: Database) -> None:
        self.client, self.headers, self.database = client, headers, database
        content = networks.convnet().SerializeToString()
        kind = {"Content-Type": "application/octet-stream"}
        self.model = client.post("/v1/models?name=net", content=content, headers=headers | kind).json()["id"]

    def ready(self) -> bool:
        model = self.client.get(f"/v1/models/{self.model}", headers=self.headers).json()
        return bool(model["status"] == "ready")

    def workers(self) -> dict[int, bool]:
        """Live workers by process id, and whether they can train."""
        answer = self.client.get("/readyz").json()
        return {int(worker["name"].rpartition(":")[2]): worker["trains"] for worker in answer["workers"]}

    def submit(self, body: dict[str, Any]) -> httpx.Response:
        request = {"model_id": self.model, **body}
        return self.client.post("/v1/jobs", json=request, headers=self.headers)

    def row(self, answer: httpx.Response) -> JobRow:
        with self.database.session_scope() as session:
            return session.get_one(JobRow, UUID(answer.json()["id"]))

    def holder_of(self, answer: httpx.Response) -> int:
        """The process of the worker that runs a job, as soon as one does."""
        assert answer.status_code == 202, answer.text
        holders: list[str] = []

        def seen() -> bool:
            holder = self.row(answer).lease_holder
            holders.extend([holder] if holder else [])
            return bool(holders)

        wait(seen)
        return int(holders[0].rpartition(":")[2])


@pytest.mark.long
# Three workers start, and torch is loaded twice.
def test_jobs_that_train_go_to_who_can_train_and_all_others_to_both(
    start_api: Callable[..., LiveApi], start_worker: Start, writer: Headers, database: Database
) -> None:
    with start_api().client() as client:
        start_worker("inspect")
        small = start_worker("cpu", LATHE_WORKER_TRAINS="no")
        caller = Caller(client, writer, database)
        wait(lambda: caller.ready() and small in caller.workers())
        refused = caller.submit(TRAINS)
        assert (refused.status_code, refused.json()["code"]) == (409, "no_training_worker")

        trainer = start_worker("cpu", LATHE_WORKER_TRAINS="auto")
        wait(lambda: trainer in caller.workers())
        assert {pid: trains for pid, trains in caller.workers().items() if pid in {small, trainer}} == {
            small: False,
            trainer: True,
        }
        # One runs while the other is submitted: each of the two takes one.
        first = caller.submit(PLAIN)
        holders = [caller.holder_of(first)]
        second = caller.submit(PLAIN)
        holders.append(caller.holder_of(second))
        assert set(holders) == {small, trainer}
        # Both are busy; whoever is free first, those that train wait for the one that can.
        training = [caller.submit(TRAINS) for _ in range(2)]
        assert [caller.holder_of(answer) for answer in training] == [trainer, trainer]
        # And while that one trains, the other takes what does not.
        assert caller.holder_of(caller.submit(PLAIN)) == small
        done = caller.row(training[0])
        assert (done.state, done.attempt) == ("succeeded", 1)
