"""Who did what, on the terminal."""

from pathlib import Path

import pytest

from app.client import Lathe
from app.embedded import Stack
from tests.app.cli.conftest import LatheCommand


def test_what_was_done_is_shown_with_who_did_it(lathe: LatheCommand, stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "audited.onnx"
    path.write_bytes(b"no model, and stored all the same")
    with Lathe(stack.url, stack.key) as client:
        model = client.upload_model(path, wait=False)
    made = lathe("keys", "create", "--name", "weak", "--scope", "read", "--data", stack.key_file.parent, "--json").json
    [created] = lathe("audit", "--object", model.id, "--json").json
    assert (created["action"], created["details"]) == ("model.created", {"name": "audited.onnx"})
    latest = lathe("audit", "--action", "key.created", "--limit", "1").stdout
    assert "on the host" in latest
    assert made["prefix"] in latest
    shown = lathe("audit", "--object", model.id).stdout
    assert stack.key.split("_")[1] in shown
    assert str(model.id) in shown


def test_a_key_that_may_not_read_it_is_told_what_may(
    bare_lathe: LatheCommand, lathe: LatheCommand, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lathe("keys", "create", "--name", "weak", "--scope", "read", "--data", stack.key_file.parent, "--json").json
    monkeypatch.setenv("LATHE_KEY", made["key"])
    refused = bare_lathe("audit")
    assert refused.code == 4
    assert "--scope admin" in refused.stderr
