"""What was stored when a search's trials had other names is read by their present ones, and the reverse."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from pydantic import ValidationError
from sqlalchemy import select

import migrations
from app.config import Settings
from app.database import Database
from app.jobs.report import SearchReport
from app.jobs.schemas import JobEvent
from app.jobs.tables import JobEventRow, JobRow, ReportRow
from app.recipes.auto import Search
from app.schema import migrate
from tests.app.jobs.factories import add_job

SEARCH = {"passes": None, "max_trials": 7}
TRIAL = {"name": "int8, static"}


def test_trials_keep_what_they_are_under_either_name(own_database: str, settings: Settings) -> None:
    migrate(own_database)
    database = Database(settings.model_copy(update={"database_url": type(settings.database_url)(own_database)}))
    job_id = add_job(database, request={"recipe": "auto", "search": SEARCH})
    other_id = add_job(database, request={"recipe": []})
    events = [("trial", {"trial": TRIAL}), ("best", {"trial": TRIAL, "file_name": "a"}), ("state", {"attempt": 2})]
    with database.session_scope() as session:
        session.add(ReportRow(job_id=job_id, body={"search": {"trials": [TRIAL], "ended": "-"}}))
        session.add(ReportRow(job_id=other_id, body={"search": None}))
        session.add_all(JobEventRow(job_id=job_id, type=kind, data=data) for kind, data in events)
    config = Config(attributes={"database_url": own_database})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    command.downgrade(config, "20261130_ended_jobs")
    with database.session_scope() as session:
        assert session.get_one(JobRow, job_id).request["search"] == {"passes": None, "max_candidates": 7}
        assert session.get_one(ReportRow, job_id).body == {"search": {"attempts": [TRIAL], "ended": "-"}}
        told = [(row.type, row.data) for row in session.scalars(select(JobEventRow).order_by(JobEventRow.id))]
    assert told == [("attempt", {"attempt": TRIAL}), ("best", {"attempt": TRIAL, "file_name": "a"}), events[2]]
    migrate(own_database)
    with database.session_scope() as session:
        assert session.get_one(JobRow, job_id).request == {"recipe": "auto", "search": SEARCH}
        assert session.get_one(JobRow, other_id).request == {"recipe": []}
        assert session.get_one(ReportRow, job_id).body == {"search": {"trials": [TRIAL], "ended": "-"}}
        assert session.get_one(ReportRow, other_id).body == {"search": None}
        told = [(row.type, row.data) for row in session.scalars(select(JobEventRow).order_by(JobEventRow.id))]
    assert told == events
    database.dispose()


def test_a_request_of_the_release_before_is_read_and_not_with_both_names() -> None:
    assert (
        Search.model_validate({"passes": None, "max_candidates": 7}).model_dump() == Search(max_trials=7).model_dump()
    )
    with pytest.raises(ValidationError, match="max_candidates"):
        Search.model_validate({"max_candidates": 7, "max_trials": 8})


def test_a_report_of_the_release_before_is_read() -> None:
    trial = TRIAL | {"recipe": [], "outcome": "winner", "explanation": "-", "seconds": 1.0}
    said = {"explanation": [], "attempts": [trial], "front": [], "seconds": 1.0, "ended": "-"}
    assert [one.name for one in SearchReport.model_validate(said).trials] == ["int8, static"]


@pytest.mark.parametrize(
    ("kind", "data", "read"),
    [
        ("attempt", {"attempt": TRIAL}, ("trial", {"trial": TRIAL})),
        ("best", {"attempt": TRIAL, "file_name": "a"}, ("best", {"trial": TRIAL, "file_name": "a"})),
        ("state", {"state": "running", "attempt": 2}, ("state", {"state": "running", "attempt": 2})),
    ],
)
def test_an_event_of_the_release_before_is_read(kind: str, data: dict[str, Any], read: tuple[str, Any]) -> None:
    event = JobEvent(id=1, type=kind, at=datetime.now(UTC), data=data)
    assert (event.type, event.data) == read
