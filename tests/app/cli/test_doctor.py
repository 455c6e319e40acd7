"""`lathe doctor`, beside a service that runs, one that does not, and none."""

from pathlib import Path

import pytest

from app.embedded import Stack
from tests.app.cli.conftest import LatheCommand


def test_a_service_that_runs_has_no_problem(lathe: LatheCommand, stack: Stack) -> None:
    outcome = lathe("doctor", "--data", stack.key_file.parent, "--json")
    levels = {finding["name"]: finding["level"] for finding in outcome.json}
    assert "problem" not in levels.values(), outcome.json
    assert outcome.code == 0
    assert {"api", "key", "postgres", "redis", "storage", "housekeeping", "worker cpu"} <= set(levels)


def test_what_is_found_is_told_with_its_remedy(
    lathe: LatheCommand, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_JOBS_LEASE_SECOND", "30")
    monkeypatch.setenv("LATHE_KEY", "not-a-key")
    outcome = lathe("doctor", "--data", stack.key_file.parent)
    assert outcome.code == 1
    for words in ("Did you mean LATHE_JOBS_LEASE_SECONDS?", "The API key is refused", "lathe keys list"):
        assert words in outcome.stdout


def test_a_service_that_does_not_run_is_not_started(
    bare_lathe: LatheCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_URL", "http://127.0.0.1:1")
    folder = tmp_path / "data"
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "PG_VERSION").write_text("16\n")
    outcome = bare_lathe("doctor", "--data", folder)
    assert outcome.code == 1
    assert "does not run" in outcome.stdout
    assert "http://127.0.0.1:1 does not answer" in outcome.stdout
    assert [path.name for path in folder.iterdir()] == ["postgres"]


def test_half_an_environment_is_told_by_its_missing_half(
    bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://lathe:hidden-word@127.0.0.1:1/lathe")
    monkeypatch.delenv("REDIS_URL", raising=False)
    outcome = bare_lathe("doctor")
    assert outcome.code == 1
    assert "REDIS_URL is not set" in outcome.stdout
    assert "hidden-word" not in outcome.stdout + outcome.stderr
