"""Secrets that were planted are in nothing that the service says: answers, logs, tables, errors."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import make_url, text

from app.access.service import create_key
from app.database import Database
from app.schema import METADATA
from tests.app.uploads import OCTETS
from tests.conftest import Services
from tests.live_api import LiveApi

NOWHERE = "127.0.0.1:9"
KEY_SECRET = "planted-hmac-0123456789-abcdefghij"
DATABASE_PASSWORD = "planted-database-4711"
REDIS_PASSWORD = "planted-redis-4712"
STORAGE_KEY = "PLANTEDSTORAGEKEY4713"
STORAGE_SECRET = "planted/storage+secret/4714"
PLANTED = (KEY_SECRET, DATABASE_PASSWORD, REDIS_PASSWORD, STORAGE_KEY, STORAGE_SECRET)
STORAGE = {
    "STORAGE_URL": "s3://bucket/prefix",
    "AWS_ACCESS_KEY_ID": STORAGE_KEY,
    "AWS_SECRET_ACCESS_KEY": STORAGE_SECRET,
    "AWS_REGION": "nowhere-1",
    "AWS_ENDPOINT_URL": f"http://{NOWHERE}",
}
# A refusal of a port that nothing listens on is one second's matter for everything here but storage, which tries on.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Speech:
    """All that was said to a caller and on standard error, with the secrets that were in play."""

    said: str
    secrets: tuple[str, ...]

    def leaks(self) -> list[str]:
        return [secret for secret in self.secrets if secret in self.said]


def with_password(services: Services) -> str:
    """The URL of the tests' database, with a password that it does not ask for."""
    return make_url(services.database_url).set(password=DATABASE_PASSWORD).render_as_string(hide_password=False)


@pytest.fixture
def key(database: Database) -> str:
    with database.session_scope() as session:
        return create_key(
            session, workspace="default", name="x", scopes=["read", "write"], lifetime=None, secret_key=KEY_SECRET
        )[1]


@pytest.fixture
def listen(start_api: Callable[..., LiveApi], capfd: pytest.CaptureFixture[str], key: str) -> Callable[..., Speech]:
    """`listen(**environment)`: the API with these and all other secrets, asked in many ways, some of them wrong."""

    def ask(**environment: str) -> Speech:
        api = start_api(LATHE_SECRET_KEY=KEY_SECRET, LATHE_LOG_JSON="true", **environment)
        said = [f"{answer.headers} {answer.text}" for answer in answers(api, key)]
        api.process.terminate()
        api.process.wait(20)
        captured = capfd.readouterr()
        assert "request_id" in captured.err, "the log is read"
        return Speech("\n".join([*said, captured.out, captured.err]), (*PLANTED, key, key.split("_", 2)[2]))

    return ask


def answers(api: LiveApi, key: str) -> Iterator[httpx.Response]:
    bearer = {"Authorization": f"Bearer {key}"}
    job = {"model_id": str(uuid4()), "recipe": [{"pass": "optimize_graph"}]}
    with api.client() as client:
        client.timeout = httpx.Timeout(PATIENCE_SECONDS)
        for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json"):
            yield client.get(path)
        yield client.get("/v1/models", headers=bearer)
        yield client.get("/v1/models", headers={"Authorization": f"Basic {key}"})
        yield client.get("/v1/models", headers={"Authorization": f"Bearer {key[:-1]}"})
        yield client.get(f"/v1/jobs/{uuid4()}", headers=bearer)
        yield client.post("/v1/jobs", json=job, headers=bearer)
        yield client.post("/v1/jobs", content=b"{", headers=bearer)
        yield client.post("/v1/models?name=x", content=b"bytes", headers=bearer | OCTETS)
        yield client.get("/v1/passes", headers=bearer)


def test_what_works_tells_no_secret(
    listen: Callable[..., Speech], services: Services, database: Database, key: str
) -> None:
    speech = listen(DATABASE_URL=with_password(services))
    assert speech.leaks() == []
    assert '"status":"inspecting"' in speech.said, "it did work"
    with database.session_scope() as session:
        kept = "\n".join(
            row
            for table in METADATA.sorted_tables
            for row in session.scalars(text(f"SELECT to_jsonb({table.name})::text FROM {table.name}"))  # noqa: S608 - names of our own
        )
    assert key.split("_")[1] in kept, "the tables are read"
    assert [secret for secret in speech.secrets if secret in kept] == []


def test_storage_and_broker_that_do_not_answer_tell_no_secret(
    listen: Callable[..., Speech], services: Services
) -> None:
    broker = f"redis://:{REDIS_PASSWORD}@{NOWHERE}/0"
    speech = listen(DATABASE_URL=with_password(services), REDIS_URL=broker, **STORAGE)
    assert speech.leaks() == []
    assert "requests_counted_per_process" in speech.said
    assert "Storage does not answer" in speech.said


def test_a_database_that_does_not_answer_tells_no_secret(listen: Callable[..., Speech]) -> None:
    speech = listen(DATABASE_URL=f"postgresql+psycopg://lathe:{DATABASE_PASSWORD}@{NOWHERE}/lathe")
    assert speech.leaks() == []
    assert "database_unavailable" in speech.said


@pytest.mark.parametrize(
    "wrong",
    [
        {"LATHE_SECRET_KEY": "planted-short"},
        pytest.param(
            {"DATABASE_URL": f"postgresql+psycopg://lathe:{DATABASE_PASSWORD}@no port:x/lathe"}, marks=pytest.mark.long
        ),
        pytest.param(
            {"STORAGE_URL": f"gopher://{STORAGE_KEY}:{STORAGE_SECRET}@nowhere/bucket"}, marks=pytest.mark.long
        ),
        pytest.param({"LATHE_JOBS_LEASE_SECONDS": "1"}, marks=pytest.mark.long),
    ],
    ids=["short-key", "no-database", "no-storage", "other-setting"],
)
def test_a_service_that_refuses_to_start_tells_no_secret(
    environment: dict[str, str], wrong: dict[str, str], tmp_path: Path
) -> None:
    planted = {"REDIS_URL": f"redis://:{REDIS_PASSWORD}@{NOWHERE}/0", "LATHE_SECRET_KEY": KEY_SECRET} | STORAGE | wrong
    command = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--uds", str(tmp_path / "socket")]
    ended = subprocess.run(command, env=environment | planted, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    secrets = (*PLANTED, "planted-short")
    assert [secret for secret in secrets if secret in ended.stdout + ended.stderr] == []


def test_the_command_line_tells_no_secret_of_a_database_that_does_not_answer(environment: dict[str, str]) -> None:
    url = f"postgresql+psycopg://lathe:{DATABASE_PASSWORD}@{NOWHERE}/lathe"
    planted = environment | {"DATABASE_URL": url, "LATHE_SECRET_KEY": KEY_SECRET, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", "from app.cli import main; main()", "keys", "list"]
    ended = subprocess.run(command, env=planted, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert [secret for secret in PLANTED if secret in ended.stdout + ended.stderr] == []
