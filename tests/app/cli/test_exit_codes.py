"""Scripts rely on the exit codes, and people on a line that says what is wrong."""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from app.cli.exits import ExitCode, code_of_error, code_of_job
from app.client import Job, WaitTimeout
from app.config import Settings
from tests.app.cli.conftest import LatheCommand
from tests.app.client.answers import JOB
from tests.app.client.conftest import Server, server
from tests.conftest import SECRET_KEY

NOBODY = "http://127.0.0.1:9"  # the discard port
UNKNOWN = UUID(int=404)

__all__ = ["server"]  # the fixture


def job(**fields: object) -> Job:
    return Job.model_validate({**JOB, **fields})


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        pytest.param(job(state="succeeded"), ExitCode.DONE, id="succeeded"),
        pytest.param(
            job(state="succeeded", verdict={"outcome": "met", "reason": "-"}), ExitCode.DONE, id="contract met"
        ),
        pytest.param(
            job(state="succeeded", verdict={"outcome": "unmet", "reason": "-"}), ExitCode.UNMET, id="contract unmet"
        ),
        pytest.param(job(state="failed"), ExitCode.FAILED, id="failed"),
        pytest.param(job(state="cancelled"), ExitCode.FAILED, id="cancelled"),
        pytest.param(job(state="expired"), ExitCode.FAILED, id="expired"),
    ],
)
def test_the_end_of_a_job_is_an_exit_code(ended: Job, code: ExitCode) -> None:
    assert code_of_job(ended) is code


def test_what_takes_too_long_is_no_outage() -> None:
    assert code_of_error(WaitTimeout("job 7 is not over")) is ExitCode.FAILED


def test_without_a_key_the_remedy_is_named(bare_lathe: LatheCommand) -> None:
    outcome = bare_lathe("jobs")
    assert outcome.code == ExitCode.USAGE
    assert "LATHE_KEY" in outcome.stderr


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(("workspaces", "limit", "default", "--queued-jobs", 2**31), id="count"),
        pytest.param(("workspaces", "limit", "default", "--stored-bytes", 2**63), id="bytes"),
        pytest.param(("keys", "create", "--name", "key", "--days", 10**10), id="days"),
        pytest.param(("models", "--limit", 2**63), id="limit"),
    ],
)
def test_a_number_that_nothing_can_hold_is_refused(bare_lathe: LatheCommand, asked: tuple[object, ...]) -> None:
    outcome = bare_lathe(*asked)
    assert outcome.code == ExitCode.USAGE
    assert f"Invalid value for '{asked[-2]}'" in outcome.stderr


def test_a_service_that_does_not_answer(bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.connection.RETRY_SECONDS", 0.1)
    monkeypatch.setenv("LATHE_URL", NOBODY)
    monkeypatch.setenv("LATHE_KEY", "lth_any")
    outcome = bare_lathe("jobs", "--json")
    assert outcome.code == ExitCode.UNREACHABLE
    assert outcome.stdout == ""
    *retries, said = outcome.stderr.splitlines()
    assert said.startswith(f"lathe: {NOBODY} does not answer: ")
    assert "LATHE_URL" in said
    assert len(retries) <= 1


def use_database(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        database_url=SecretStr(url),
        redis_url=SecretStr("redis://127.0.0.1:9/0"),
        storage_url=folder.as_uri(),
        secret_key=SecretStr(SECRET_KEY),
    )
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setattr("app.config.get_settings", lambda: settings)


@pytest.mark.parametrize("group", ["keys", "workspaces", "webhooks"])
def test_a_database_that_does_not_answer(
    bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str
) -> None:
    use_database("postgresql+psycopg://lathe:hidden-word@127.0.0.1:9/lathe", tmp_path, monkeypatch)
    outcome = bare_lathe(group, "list")
    assert outcome.code == ExitCode.UNREACHABLE
    [line] = outcome.stderr.splitlines()
    assert "does not answer" in line
    assert "DATABASE_URL" in line
    assert "hidden-word" not in line


def test_a_database_without_its_schema(
    bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_database: str
) -> None:
    use_database(own_database, tmp_path, monkeypatch)
    outcome = bare_lathe("keys", "list")
    assert outcome.code == ExitCode.FAILED
    [line] = outcome.stderr.splitlines()
    assert "lathe migrate" in line


def test_a_url_where_something_else_answers(
    bare_lathe: LatheCommand, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_URL", server.start())
    monkeypatch.setenv("LATHE_KEY", "lth_any")
    outcome = bare_lathe("jobs")  # answered 404, by a service that has no jobs
    assert outcome.code == ExitCode.UNREACHABLE
    assert len(outcome.stderr.splitlines()) == 1
    assert "Check the URL" in outcome.stderr


def test_a_key_that_cannot_be_sent_is_not_printed(bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATHE_KEY", "lth_any\rthing")
    outcome = bare_lathe("jobs")
    assert outcome.code == ExitCode.USAGE
    assert "LATHE_KEY" in outcome.stderr
    assert "lth_any" not in outcome.stderr


def test_a_key_that_opens_nothing(lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATHE_KEY", "lth_" + "x" * 60)
    outcome = lathe("jobs")
    assert outcome.code == ExitCode.REFUSED
    assert len(outcome.stderr.splitlines()) == 1
    assert "lathe keys create" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["no-such-command"], "No such command", id="unknown command"),
        pytest.param(["upload", "no-such-file.onnx"], "does not exist", id="missing file"),
        pytest.param(["optimize", "m.onnx"], "--pass", id="no recipe"),
        pytest.param(["optimize", "m.onnx", "--pass", "a", "--recipe", "b"], "--recipe", id="two recipes"),
        pytest.param(["optimize", "m.onnx", "--recipe", "absent.json"], "absent.json", id="missing recipe"),
        pytest.param(["optimize", "m.onnx", "--pass", "a", "--labels", "y"], "--metric", id="labels without a metric"),
        pytest.param(["optimize", "m.onnx", "--recipe", "auto"], "auto: No such file", id="auto is no file"),
        pytest.param(["optimize", "nofile.onnx", "--pass", "a"], "lathe models", id="neither an id nor a file"),
        pytest.param(["optimize", str(UNKNOWN), "--pass", "a", "--training", "no.npz"], "no.npz", id="missing dataset"),
        pytest.param(["optimize", "m.onnx", "--pass", "a", "--max-drop", "7"], "--max-drop", id="impossible contract"),
        pytest.param(["optimize", "m.onnx", "--pass", "a", "--no-reuse"], "--auto", id="a search's option without one"),
        pytest.param(["watch", "7"], "UUID", id="not an id"),
    ],
)
def test_wrong_usage(
    bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("LATHE_KEY", "lth_any")
    outcome = bare_lathe(*arguments)
    assert outcome.code == ExitCode.USAGE
    assert message in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("[1]", "each a name or an object", id="a number"),
        pytest.param('[["quantize_static"]]', "each a name or an object", id="a list"),
        pytest.param("[]", "a list of passes", id="nothing"),
        pytest.param('{"pass": "quantize_static"}', "a list of passes", id="no list"),
        pytest.param('[{"pass": "a", "b": NaN}]', "NaN is no number that JSON has", id="not a number"),
        pytest.param('[{"pass": "a", "b": 1e999}]', "1e999 is no number that JSON has", id="beyond all numbers"),
    ],
)
def test_a_recipe_that_no_request_can_say(bare_lathe: LatheCommand, tmp_path: Path, content: str, message: str) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(content)
    outcome = bare_lathe("optimize", "m.onnx", "--recipe", recipe)
    assert outcome.code == ExitCode.USAGE
    assert message in outcome.stderr


def test_what_the_service_refuses(lathe: LatheCommand) -> None:
    outcome = lathe("watch", UNKNOWN, "--json")
    assert outcome.code == ExitCode.REFUSED
    assert "(not_found)" in outcome.stderr
    assert outcome.stdout == ""


def test_a_file_that_is_no_model(lathe: LatheCommand, tmp_path: Path) -> None:
    path = tmp_path / "letter.onnx"
    path.write_text("Dear service, please optimize me.")
    outcome = lathe("upload", path)
    assert outcome.code == ExitCode.REFUSED
    assert "(model_not_onnx)" in outcome.stderr
    assert lathe("optimize", path, "--pass", "optimize_graph") == outcome
    assert len(outcome.stderr.splitlines()) == 1


def test_an_interruption(lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.client.Lathe.wait", interrupt)
    outcome = lathe("watch", UNKNOWN)
    assert outcome.code == ExitCode.INTERRUPTED
    assert f"lathe cancel {UNKNOWN}" in outcome.stderr


def test_help_waits_for_nothing_heavy() -> None:
    heavy = {"httpx", "pydantic", "sqlalchemy", "celery", "fastapi", "rich", "stamina", "tenacity"}
    code = f"import sys, app.cli; sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
