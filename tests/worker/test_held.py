"""How a claim ends: what the job may still wait for."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from app.config import JobSettings
from app.database import Database
from app.errors import OurFault, StorageFull
from app.jobs import lease
from app.jobs.states import JobState
from tests.app.jobs.factories import add_job, read_job
from worker.failures import JobFailed, ours
from worker.held import Held

FAULT = ours(OurFault.RUNNER_CRASHED, "The runner broke.")


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda held: held.hand_back(), JobState.QUEUED),
        (lambda held: held.fail(JobFailed(FAULT, retryable=True)), JobState.QUEUED),
        (lambda held: held.repeat("result_not_stored", FAULT), JobState.QUEUED),
        (lambda held: held.defer(StorageFull("full")), JobState.EXPIRED),
    ],
    ids=["handed-back", "broke", "result-lost", "never-ran"],
)
def test_what_ran_may_wait_anew_and_what_never_ran_expires(
    database: Database, end: Callable[[Held], None], state: JobState
) -> None:
    job_id = add_job(database)
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "test", 45.0)
        session.execute(text("UPDATE jobs SET expires_at = now() - interval '1 s'"))
    assert claim is not None
    end(Held(claim, database, JobSettings()))
    with database.session_scope() as session:
        lease.expire(session)
    assert read_job(database, job_id).state == state
