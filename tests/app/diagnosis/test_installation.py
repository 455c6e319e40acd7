"""What is wrong with an installation is found, named, and told with a remedy; what is right is told as well."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from app.blobs.mark import FOREIGN, KEY, MISSING, mark
from app.config import Settings
from app.database import Database
from app.diagnosis.finding import Finding
from app.diagnosis.installation import installation
from app.diagnosis.surroundings import unknown_variables
from app.errors import Fault, LatheError
from app.storage import Storage
from tests.app.health.factories import add_worker
from tests.app.jobs.factories import add_job

HELD = {"network": True, "filesystem": True}


def levels(found: list[Finding]) -> dict[str, str]:
    """How each thing is; of several findings of one name the last."""
    return {finding.name: finding.level for finding in found}


def only(found: list[Finding], name: str) -> Finding:
    [finding] = [finding for finding in found if finding.name == name]
    return finding


def add_everybody(database: Database) -> None:
    add_worker(database, queues=["cpu", "inspect", "cpu-training"], confinement=HELD)
    add_worker(database, name="housekeeping", queues=[])


def test_an_installation_with_everything_has_nothing_but_good_findings(settings: Settings, database: Database) -> None:
    add_everybody(database)
    add_job(database)
    found = installation(settings)
    assert set(levels(found).values()) == {"ok"}, found
    assert {"postgres", "schema", "clock", "redis", "storage", "housekeeping", "sandbox", "leases"} <= set(
        levels(found)
    )


def test_nobody_at_work_is_a_problem_for_each_who_is_missing(settings: Settings, database: Database) -> None:
    found = installation(settings)
    missing = {name for name, level in levels(found).items() if level == "problem"}
    assert missing == {"housekeeping", "worker cpu", "worker inspect"}
    assert levels(found)["training"] == "warning"
    assert all(finding.remedy for finding in found if finding.level != "ok")


def test_an_open_layer_and_unlike_workers_are_named(settings: Settings, database: Database) -> None:
    add_everybody(database)
    loose = {"network": False, "filesystem": True}
    add_worker(database, name="loose", queues=["cpu"], confinement=loose, versions={"python": "3.12"})
    found = installation(settings)
    [open_layer] = [one for one in found if one.name == "sandbox" and one.level == "warning"]
    assert "loose" in open_layer.detail
    assert open_layer.detail.endswith("network.")
    assert "python 3.11, 3.12" in only(found, "versions").detail


def test_jobs_that_do_not_get_on_are_told(settings: Settings, database: Database) -> None:
    add_everybody(database)
    past = datetime.now(UTC) - timedelta(hours=1)
    add_job(database, due_at=past)
    add_job(database, state="running", lease_expires_at=past, started_at=past)
    fault = Fault(code="runner_crashed", title=LatheError.title, detail="It broke.").model_dump()
    add_job(database, state="failed", error=fault, finished_at=datetime.now(UTC))
    theirs = fault | {"title": "The model is no model", "code": "invalid_model"}
    add_job(database, state="failed", error=theirs, finished_at=datetime.now(UTC))
    found = installation(settings)
    assert only(found, "leases").level == "problem"
    assert "60 minutes" in only(found, "queue").detail
    assert only(found, "failures").detail.endswith(": 1 x runner_crashed.")


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        pytest.param({"redis_url": SecretStr("redis://:hidden-word@127.0.0.1:1/0")}, "redis", id="redis"),
        pytest.param({"storage_url": "file:///proc/lathe"}, "storage", id="storage"),
        pytest.param(
            {"database_url": SecretStr("postgresql+psycopg://lathe:hidden-word@127.0.0.1:1/lathe")},
            "postgres",
            id="postgres",
        ),
    ],
)
def test_what_does_not_answer_is_a_problem_and_the_rest_is_looked_at(
    settings: Settings, database: Database, changes: dict[str, Any], broken: str
) -> None:
    add_everybody(database)
    found = installation(settings.model_copy(update=changes))
    assert {name for name, level in levels(found).items() if level == "problem"} == {broken}
    assert {"postgres", "redis", "storage"} <= set(levels(found))
    assert "hidden-word" not in str(found)


def test_storage_of_another_database_is_a_problem(settings: Settings, database: Database, storage: Storage) -> None:
    mark(database, storage)
    assert only(installation(settings), "storage mark").level == "ok"
    storage.delete_sync(KEY)
    assert only(installation(settings), "storage mark").detail == MISSING
    storage.put_note_sync(KEY, b"another database's")
    assert only(installation(settings), "storage mark").detail == FOREIGN


def test_a_database_without_a_schema_is_told_to_be_migrated(settings: Settings, database: Database) -> None:
    url = make_url(settings.database_url.get_secret_value())
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("CREATE DATABASE lathe_bare"))
        try:
            bare = url.set(database="lathe_bare").render_as_string(hide_password=False)
            found = installation(settings.model_copy(update={"database_url": SecretStr(bare)}))
        finally:
            connection.execute(text("DROP DATABASE lathe_bare WITH (FORCE)"))
    schema = only(found, "schema")
    assert schema.level == "problem"
    assert schema.remedy is not None
    assert "lathe migrate" in schema.remedy


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        pytest.param("LATHE_JOBS_LEASE_SECOND", "LATHE_JOBS_LEASE_SECONDS", id="misspelt"),
        pytest.param("LATHE_QQQQQQQ", "README.md", id="like nothing"),
    ],
)
def test_a_variable_that_nothing_reads_is_told(name: str, remedy: str) -> None:
    [finding] = unknown_variables({name: "30", "PATH": "", "LATHE_SECRET_KEY": "x", "LATHE_API_PORT": "8000"})
    assert finding.level == "warning"
    assert name in finding.detail
    assert finding.remedy is not None
    assert remedy in finding.remedy
