"""One id goes from a request through everything that is done for it."""

import io
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import structlog
from sqlalchemy import select

from app.config import Settings
from app.database import Database
from app.jobs import lease
from app.jobs.tables import JobRow
from app.queue import Queue
from tests.app.jobs.factories import add_job
from tests.app.uploads import OCTETS
from tests.conftest import MakeKey, bearer
from tests.worker import networks
from tests.worker.attempts import inspect
from worker.heart import Heart
from worker.housekeeping import Housekeeper
from worker.supervisor import Supervisor

ASKED = "from-a-user-17"


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def ids(line: dict[str, Any]) -> tuple[object, object, object]:
    return line.get("request_id"), line.get("job_id"), line.get("attempt")


async def test_what_an_attempt_logs_bears_the_id_of_the_request_that_asked_for_it(
    client: httpx.AsyncClient, supervisor: Supervisor, database: Database, make_key: MakeKey, log: io.StringIO
) -> None:
    headers = bearer(make_key()) | OCTETS | {"X-Request-Id": ASKED}
    answer = await client.post("/v1/models?name=x", content=networks.convnet().SerializeToString(), headers=headers)
    assert answer.status_code == 201, answer.text
    with database.session_scope() as session:
        job_id: UUID = session.scalars(select(JobRow.id)).one()
    supervisor.run(job_id)
    said = [line for line in lines(log) if line.get("job_id") == str(job_id)]
    assert {"attempt_started", "attempt_succeeded"} <= {line["event"] for line in said}
    assert {ids(line) for line in said} == {(ASKED, str(job_id), 1)}


def test_what_the_threads_of_an_attempt_log_bears_its_ids(
    supervisor: Supervisor, database: Database, model: UUID, runner: Callable[[str], None], log: io.StringIO
) -> None:
    """A file that is not there, which one thread was to carry away, and noise, which another hears."""
    runner(
        """
        pipe = int(os.environ['LATHE_EVENT_FD'])
        os.write(pipe, b'{"type": "checkpoint", "step": 0, "file": "0-0.tar"}\\n')
        os.write(pipe, b'noise\\n')
        """
    )
    job_id = inspect(supervisor, database, model, request_id=ASKED)
    said = {line["event"]: ids(line) for line in lines(log)}
    assert {"attempt_started", "offer_not_kept", "event_refused", "attempt_failed"} <= said.keys()
    assert set(said.values()) == {(ASKED, str(job_id), 1)}


def test_what_a_heart_logs_bears_the_ids_of_its_attempt(
    supervisor: Supervisor, database: Database, log: io.StringIO
) -> None:
    with database.session_scope() as session:
        claim = lease.claim(session, add_job(database), "test", 45.0)
    assert claim is not None
    bound = {"request_id": ASKED, "job_id": str(claim.job_id), "attempt": 1}
    with (
        structlog.contextvars.bound_contextvars(**bound),
        Heart(database, claim, supervisor.settings.jobs, limit_seconds=-1.0) as heart,
    ):
        assert heart.lost.wait(20)
    assert [(line["event"], *ids(line)) for line in lines(log)] == [("attempt_hangs", *bound.values())]


def test_a_lease_that_is_over_is_told_with_the_attempt_that_had_it(
    settings: Settings, database: Database, log: io.StringIO
) -> None:
    job_id = add_job(database, request_id=ASKED)
    with database.session_scope() as session:
        assert lease.claim(session, job_id, "a worker that dies", 0.0) is not None
    Housekeeper(settings, database, Queue(settings)).tidy()
    said = [line for line in lines(log) if line["event"] == "lease_over"]
    assert [(*ids(line), line["now"]) for line in said] == [(ASKED, str(job_id), 1, "queued")]
