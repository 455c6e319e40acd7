"""What the rows of one workspace have to do with another is read off every table."""

from uuid import UUID

from app.access.service import ensure_workspace
from app.database import Database
from app.jobs.tables import JobEventRow, ReportRow
from tests.app.jobs.factories import add_artifact, add_job, add_model
from tests.faults.storm.crossing import Tie, ties

MARKS = {"default": "only_in_default", "other": "only_in_other"}


def test_references_and_marks_of_another_workspace_are_found(database: Database, workspace_id: UUID) -> None:
    with database.session_scope() as session:
        other = ensure_workspace(session, "other")
    model_id = add_model(database, other)
    job_id = add_job(database, workspace_id=workspace_id, model_id=model_id, request={"output": "only_in_default"})
    add_artifact(database, other, job_id)
    with database.session_scope() as session:
        session.add(ReportRow(job_id=job_id, body={"outputs": ["only_in_other"]}))
        session.add(JobEventRow(job_id=job_id, type="log", data={"message": "of only_in_other"}))
    with database.session_scope() as session:
        found = ties(session, MARKS)
    assert {tie for tie in found if tie.workspace != tie.other} == {
        Tie("jobs.model_id", "default", "other", 1),
        Tie("artifacts.job_id", "other", "default", 1),
        Tie("reports", "default", "other", 1),
        Tie("job_events", "default", "other", 1),
    }
    assert Tie("jobs", "default", "default", 1) in found
    assert Tie("models.blob_id", "other", "other", 1) in found
