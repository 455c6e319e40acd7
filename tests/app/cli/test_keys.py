"""Keys, made and revoked on the database."""

from pathlib import Path

import httpx
import pytest

from app.cli.connection import url_and_key
from app.client import DEFAULT_URL, Lathe, LatheApiError
from app.embedded import EmbeddedServices, Stack
from app.embedded.folder import DataFolder
from tests.app.cli.conftest import LatheCommand
from tests.conftest import bearer


def test_a_key_made_beside_a_running_service_opens_it_until_it_is_revoked(
    bare_lathe: LatheCommand, stack: Stack
) -> None:
    data = ("--data", stack.key_file.parent)
    made = bare_lathe("keys", "create", "--name", "laptop", "--scope", "read", "--days", "30", *data, "--json").json
    assert made["scopes"] == ["read"]
    assert made["expires_at"] is not None
    with Lathe(stack.url, made["key"]) as lathe:
        assert isinstance(list(lathe.models()), list)
        with pytest.raises(LatheApiError, match="missing_scope"):
            lathe.delete_model(made["prefix"])

    listed = bare_lathe("keys", "list", *data)
    assert made["prefix"] in listed.stdout
    assert made["key"] not in listed.stdout
    gone = bare_lathe("keys", "revoke", made["prefix"], *data, "--json")
    assert gone.json == {"prefix": made["prefix"], "revoked": True}
    assert bare_lathe("keys", "revoke", made["prefix"], *data).code == 4
    revoked = {row["prefix"]: row["revoked_at"] for row in bare_lathe("keys", "list", *data, "--json").json}
    assert revoked[made["prefix"]] is not None


def test_the_owner_needs_neither_url_nor_key_in_the_environment(
    bare_lathe: LatheCommand, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_DATA_FOLDER", str(stack.key_file.parent))
    assert bare_lathe("models", "--json").code == 0
    monkeypatch.setenv("LATHE_URL", f"{stack.url}/")
    assert bare_lathe("models", "--json").code == 0


@pytest.mark.usefixtures("bare_lathe")
def test_the_owners_key_goes_to_nobody_who_listens_in_the_services_stead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATHE_DATA_FOLDER", str(tmp_path / "data"))
    url, other = "http://127.0.0.1:9000", "http://127.0.0.1:9001"
    served = DataFolder(tmp_path / "data")
    served.write_secret("key", "lth_owner")
    assert url_and_key() == (DEFAULT_URL, None)  # it starts
    served.record_url(url)
    assert url_and_key() == (url, "lth_owner")
    monkeypatch.setenv("LATHE_URL", other)
    assert url_and_key() == (other, None)
    monkeypatch.delenv("LATHE_URL")
    served.release()
    assert url_and_key() == (DEFAULT_URL, None)


@pytest.mark.usefixtures("bare_lathe")
def test_where_a_service_answered_before_it_was_killed_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATHE_DATA_FOLDER", str(tmp_path / "data"))
    served = DataFolder(tmp_path / "data")
    served.write_secret("key", "lth_owner")
    served.release()
    served.record_url("http://127.0.0.1:9000")
    assert url_and_key() == (DEFAULT_URL, None)
    held = DataFolder(tmp_path / "data")
    assert url_and_key() == (DEFAULT_URL, None)
    held.release()


def test_the_owners_key_stays_on_this_machine(
    bare_lathe: LatheCommand, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_URL", "http://lathe.invalid")
    monkeypatch.setenv("LATHE_DATA_FOLDER", str(stack.key_file.parent))
    outcome = bare_lathe("models")
    assert outcome.code == 2
    assert "LATHE_KEY" in outcome.stderr


def test_a_service_that_does_not_run_is_started_for_a_key(bare_lathe: LatheCommand, tmp_path: Path) -> None:
    with EmbeddedServices(tmp_path / "stopped", durable=False):
        pass
    data = ("--data", tmp_path / "stopped")
    made = bare_lathe("keys", "create", "--name", "first", *data)
    assert made.code == 0
    assert made.stdout.startswith("lth_")
    assert [row["name"] for row in bare_lathe("keys", "list", *data, "--json").json] == ["first"]


@pytest.mark.parametrize(
    "command", [["create", "--name", "x"], ["list"], ["revoke", "abc"]], ids=lambda words: words[0]
)
def test_a_key_makes_no_second_service(bare_lathe: LatheCommand, tmp_path: Path, command: list[str]) -> None:
    """The service may run on another folder: a key of a new one would open nothing, and nobody would know why."""
    outcome = bare_lathe("keys", *command)
    assert (outcome.code, outcome.stdout) == (2, "")
    for part in (str(tmp_path / "no-such-folder"), "--data", "LATHE_DATA_FOLDER", "DATABASE_URL"):
        assert part in outcome.stderr
    assert not (tmp_path / "no-such-folder").exists()


def test_an_unknown_scope_is_refused(bare_lathe: LatheCommand, tmp_path: Path) -> None:
    outcome = bare_lathe("keys", "create", "--name", "x", "--scope", "root", "--data", tmp_path)
    assert outcome.code == 2
    assert "root" in outcome.stderr


def test_a_workspace_gets_limits_of_its_own_and_gives_them_back(bare_lathe: LatheCommand, stack: Stack) -> None:
    data = ("--data", stack.key_file.parent)
    bare_lathe("keys", "create", "--name", "x", "--workspace", "narrow", *data)
    limits = ("--requests-per-minute", "1", "--stored-bytes", "0", *data)
    assert bare_lathe("workspaces", "limit", "narrow", *limits).code == 0
    key = bare_lathe("keys", "create", "--name", "y", "--workspace", "narrow", *data).stdout.strip()
    answers = [httpx.get(f"{stack.url}/v1/models", headers=bearer(key), trust_env=False) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    shown = {row["workspace"]: row for row in bare_lathe("workspaces", "list", *data, "--json").json}
    assert shown["narrow"] == {
        "workspace": "narrow",
        "requests_per_minute": 1,
        "stored_bytes": 0,
        "queued_jobs": None,
        "running_jobs": None,
        "models_days": None,
        "datasets_days": None,
        "artifacts_days": None,
    }
    table = bare_lathe("workspaces", "list", *data).stdout
    assert "(10000)" in table
    assert bare_lathe("workspaces", "limit", "narrow", "--reset", *data).code == 0
    shown = {row["workspace"]: row for row in bare_lathe("workspaces", "list", *data, "--json").json}
    assert shown["narrow"]["requests_per_minute"] is None


@pytest.mark.parametrize(("arguments", "code"), [(["nobody", "--queued-jobs", "1"], 4), (["nobody"], 2)], ids=str)
def test_limits_that_cannot_be_set_are_refused(
    bare_lathe: LatheCommand, stack: Stack, arguments: list[str], code: int
) -> None:
    assert bare_lathe("workspaces", "limit", *arguments, "--data", stack.key_file.parent).code == code


def test_a_workspace_keeps_things_for_days_of_its_own_and_gives_them_back(
    bare_lathe: LatheCommand, stack: Stack
) -> None:
    data = ("--data", stack.key_file.parent)
    bare_lathe("keys", "create", "--name", "x", "--workspace", "brief", *data)
    assert bare_lathe("workspaces", "retain", "brief", "--models-days", "30", *data).code == 0

    def shown() -> list[object]:
        [row] = [row for row in bare_lathe("workspaces", "list", *data, "--json").json if row["workspace"] == "brief"]
        return [row[name] for name in ("models_days", "datasets_days", "artifacts_days")]

    assert shown() == [30, None, None]
    table = bare_lathe("workspaces", "list", "--retention", *data).stdout
    assert [line.split()[1:] for line in table.splitlines() if line.startswith("brief")] == [["30", "(none)", "(none)"]]
    assert bare_lathe("workspaces", "retain", "brief", "--reset", *data).code == 0
    assert shown() == [None, None, None]
    assert bare_lathe("workspaces", "retain", "brief", *data).code == 2
    assert bare_lathe("workspaces", "retain", "nobody", "--models-days", "1", *data).code == 4
