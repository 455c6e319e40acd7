"""What is over is added up once, whatever else happens meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI

from app.database import Database
from app.health import job_figures
from app.health.job_figures import JobTotals, Totals
from tests.app.jobs.factories import add_job

CPU = ("cpu", "optimize")


def ended(database: Database, finished_at: datetime) -> None:
    """A job that ran for a minute and succeeded."""
    began = finished_at - timedelta(minutes=1)
    request = {"recipe": [{"pass": "optimize_graph"}]}
    times = {"created_at": began, "started_at": began, "finished_at": finished_at}
    add_job(database, state="succeeded", request=request, **times)


@pytest.mark.parametrize("piece_jobs", [1, 50_000])
async def test_jobs_that_are_over_are_added_up_once(
    app: FastAPI, database: Database, emptying: str, monkeypatch: pytest.MonkeyPatch, piece_jobs: int
) -> None:
    monkeypatch.setattr(job_figures, "PIECE_JOBS", piece_jobs)
    totals = JobTotals()

    async def read() -> Totals:
        async with app.state.database.session_scope() as session:
            return await totals.read(session)

    now = datetime.now(UTC)
    # Three of one moment, which nothing tells apart.
    for minutes in (60, 60, 60, 30, 1):
        ended(database, now - timedelta(minutes=minutes))
    add_job(database)
    for _ in range(2):
        found = await read()
        assert (found["lathe_jobs", "succeeded", *CPU], found["lathe_jobs", "queued", *CPU]) == (5, 1)
        assert found["lathe_job_passes", "optimize_graph", "succeeded"] == 5
        assert found["lathe_job_running_seconds", "optimize", "+Inf"] == 5
    # What ended some minutes ago is not read again; what ended since is, for more of it may yet be committed.
    with database.session_scope() as session:
        session.connection().exec_driver_sql(emptying)
    ended(database, now - timedelta(minutes=2))
    ended(database, now)
    found = await read()
    assert found["lathe_jobs", "succeeded", *CPU] == 4 + 2
    assert found["lathe_job_waiting_seconds", "optimize", "+Inf"] == 4 + 2
