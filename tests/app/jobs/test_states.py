"""The state machine: the code and the trigger in the database hold the same edges."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.database import Database
from app.jobs.states import EDGES, TERMINAL, JobState
from tests.app.jobs.factories import add_job, read_job

PAIRS = [(before, after) for before in JobState for after in JobState if before is not after]


def put(database: Database, state: JobState):
    """A job in `state`, by an insert: the trigger guards updates."""
    lease = datetime.now(UTC) if state is JobState.RUNNING else None
    return add_job(database, state=state, lease_expires_at=lease)


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=[f"{a}-to-{b}" for a, b in PAIRS])
def test_the_database_lets_pass_exactly_the_edges_of_the_code(
    database: Database, before: JobState, after: JobState
) -> None:
    job_id = put(database, before)
    lease = "now()" if after is JobState.RUNNING else "NULL"

    def cross() -> None:
        with database.session_scope() as session:
            session.execute(
                text(f"UPDATE jobs SET state = :after, fence = fence + 1, lease_expires_at = {lease} WHERE id = :id"),  # noqa: S608 - two constants
                {"after": after, "id": job_id},
            )

    if (before, after) in EDGES:
        cross()
        assert read_job(database, job_id).state == after
    else:
        with pytest.raises((DBAPIError, IntegrityError)):
            cross()
        assert read_job(database, job_id).state == before


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_terminal_row_never_changes(database: Database, state: JobState) -> None:
    job_id = put(database, state)
    for statement in ("UPDATE jobs SET progress = 0.5 WHERE id = :id", "DELETE FROM jobs WHERE id = :id"):
        with pytest.raises(DBAPIError, match="terminal row never changes"), database.session_scope() as session:
            session.execute(text(statement), {"id": job_id})


def test_the_fence_rises_with_a_claim_and_never_goes_back(database: Database) -> None:
    job_id = add_job(database, fence=7)
    for statement in (
        "UPDATE jobs SET fence = 6 WHERE id = :id",
        "UPDATE jobs SET state = 'running', lease_expires_at = now() WHERE id = :id",
    ):
        with pytest.raises(DBAPIError, match="fence must rise"), database.session_scope() as session:
            session.execute(text(statement), {"id": job_id})


def test_every_change_raises_the_version_that_etags_are_made_of(database: Database) -> None:
    job_id = add_job(database)
    for expected in (1, 2):
        with database.session_scope() as session:
            session.execute(text("UPDATE jobs SET progress = progress + 0.1 WHERE id = :id"), {"id": job_id})
        assert read_job(database, job_id).version == expected
