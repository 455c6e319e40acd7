"""`lathe upload` of a file that counts as large."""

from pathlib import Path

import pytest

from tests.app.cli.conftest import LatheCommand


def test_a_large_file_becomes_the_same_model(
    lathe: LatheCommand, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = lathe("upload", files["model"], "--json").json
    monkeypatch.setenv("LATHE_RESUMABLE_FROM_BYTES", "1000")
    assert lathe("upload", files["model"], "--json").json == plain
    monkeypatch.setenv("LATHE_RESUMABLE_FROM_BYTES", "many")
    refused = lathe("upload", files["model"])
    assert (refused.code, "LATHE_RESUMABLE_FROM_BYTES" in refused.stderr) == (2, True), refused.stderr
