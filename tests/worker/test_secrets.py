"""Secrets of a worker are in nothing that its jobs leave behind: events, errors, reports, the log."""

import io
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from app.config import Settings
from app.database import Database
from app.jobs.states import JobState
from app.schema import METADATA
from tests.app.jobs.factories import read_job
from tests.worker.attempts import add_optimization
from worker.supervisor import Supervisor

PLANTED = ("planted-hmac-0123456789-abcdefghij", "planted-database-4711", "planted/storage+secret/4714")


@pytest.fixture
def laden(supervisor: Supervisor, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor that has secrets in its environment and in its settings."""
    url = make_url(settings.database_url.get_secret_value()).set(password=PLANTED[1])
    database_url = url.render_as_string(hide_password=False)
    monkeypatch.setenv("LATHE_SECRET_KEY", PLANTED[0])
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED[2])
    changes = {"secret_key": SecretStr(PLANTED[0]), "database_url": SecretStr(database_url)}
    supervisor.settings = supervisor.settings.model_copy(update=changes)
    supervisor.database = Database(supervisor.settings)
    yield supervisor
    supervisor.database.dispose()


def kept(database: Database) -> str:
    """Every row of every table."""
    with database.session_scope() as session:
        return "\n".join(
            row
            for table in METADATA.sorted_tables
            for row in session.scalars(text(f"SELECT to_jsonb({table.name})::text FROM {table.name}"))  # noqa: S608 - names of our own
        )


def leaks(*texts: str) -> list[str]:
    return [secret for secret in PLANTED if any(secret in said for said in texts)]


def test_a_job_that_succeeds_tells_no_secret(
    laden: Supervisor, database: Database, model: UUID, log: io.StringIO
) -> None:
    job_id = add_optimization(database, model, budget_seconds=30.0)
    laden.run(job_id)
    assert read_job(database, job_id).state == JobState.SUCCEEDED
    logged = log.getvalue()
    assert "attempt_succeeded" in logged
    assert leaks(kept(database), logged) == []


def test_a_runner_that_tells_all_it_was_given_tells_no_secret(
    laden: Supervisor,
    database: Database,
    model: UUID,
    runner: Callable[[str], None],
    log: io.StringIO,
) -> None:
    """In its result, its events and on standard error, of which the log has the end."""
    runner(
        """
        given = [repr(dict(os.environ)), repr(sys.argv), open('/proc/self/environ').read()]
        given += [path.read_text(errors='replace') for path in folder.rglob('*.json')]
        given = ' '.join(given).replace(chr(0), ' ')
        print(given[-3000:], file=sys.stderr)
        pipe = int(os.environ['LATHE_EVENT_FD'])
        os.write(pipe, json.dumps(dict(type='log', level='info', message=given[-3000:])).encode() + b'\\n')
        fault = dict(code='told', title='All that I know', detail=given)
        result = dict(outcome='failed', fault=fault, retryable=True)
        (folder / 'result.json').write_text(json.dumps(result))
        """
    )
    job_id = add_optimization(database, model, max_attempts=1)
    laden.run(job_id)
    job = read_job(database, job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "told")
    assert "LATHE_EVENT_FD" in job.error["detail"], "it told what it had"
    logged = log.getvalue()
    assert "LATHE_EVENT_FD" in logged, "and the log has the end of it"
    assert leaks(kept(database), logged) == []
