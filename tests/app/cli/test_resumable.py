"""`lathe upload` and `lathe dataset` of files that count as large."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.cli.progress import SMALL_BYTES
from app.embedded import Stack
from tests.app.cli.conftest import LatheCommand
from tests.app.cli.test_progress import BAR_ON
from tests.app.resumable_uploads.test_python_client import MEBIBYTE, BadLine


def test_a_large_file_becomes_the_same_model(
    lathe: LatheCommand, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = lathe("upload", files["model"], "--json").json
    monkeypatch.setenv("LATHE_RESUMABLE_FROM_BYTES", "1000")
    assert lathe("upload", files["model"], "--json").json == plain
    monkeypatch.setenv("LATHE_RESUMABLE_FROM_BYTES", "many")
    refused = lathe("upload", files["model"])
    assert (refused.code, "LATHE_RESUMABLE_FROM_BYTES" in refused.stderr) == (2, True), refused.stderr


@pytest.fixture
def line(stack: Stack, lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadLine]:
    """Between the command and the service."""
    bad = BadLine(stack.url)
    monkeypatch.setenv("LATHE_URL", bad.url)
    yield bad
    bad.close()


def test_a_large_file_goes_on_where_the_connection_broke_below_a_bar(
    lathe: LatheCommand, line: BadLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**BAR_ON, "LATHE_RESUMABLE_FROM_BYTES": "1000"}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "images.npz"
    np.savez(path, image=np.random.default_rng(0).random((2048, 1024), np.float32))
    content = path.read_bytes()
    assert len(content) > SMALL_BYTES
    line.breaks_after_bytes = [3 * MEBIBYTE, 2 * MEBIBYTE]
    sent = lathe("dataset", path, "--json")
    assert sent.code == 0, sent.stderr
    assert sent.json["sha256"] == hashlib.sha256(content).hexdigest()
    # Beginning anew would have sent the first five megabytes and then all eight.
    assert line.breaks_after_bytes == []
    assert line.carried_bytes < len(content) + 5 * MEBIBYTE
    assert f"asking {line.url} again" in sent.stderr
    assert "uploading images.npz" in sent.stderr
    assert "8.4/8.4 MB" in sent.stderr
