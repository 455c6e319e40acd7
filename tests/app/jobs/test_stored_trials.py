"""What was stored when a search's trials had other names is read by their present ones, and the reverse."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import select

import migrations
from app.config import Settings
from app.database import Database
from app.jobs.tables import JobEventRow, JobRow, ReportRow
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
