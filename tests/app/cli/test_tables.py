"""Tables on a terminal of 80 columns, and piped."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.access.tables import ApiKeyRow
from app.cli import jobs, keys, uploads
from app.cli.tables import age_text, print_table
from app.client import Dataset, Job, Model
from tests.app.client.answers import JOB

TERMINAL = 80
IDS = [UUID(int=number << 64 | 0xFEDCBA9876543210) for number in (1, 2)]
NOW = datetime.now(UTC)
UPLOAD = {"status": "ready", "sha256": "0" * 64, "size_bytes": 14_246_826, "created_at": NOW - timedelta(hours=3)}
NAMES = ("mobilenetv2-12.onnx", "a model with a name of many words.onnx")


def show_models() -> None:
    found = [
        Model.model_validate(UPLOAD | {"id": one, "name": name, "parameter_count": 11_689_512, "opset": 17})
        for one, name in zip(IDS, NAMES, strict=True)
    ]
    print_table(uploads.MODEL_COLUMNS, map(uploads._model_row, found), [str(one.id) for one in found])


def show_datasets() -> None:
    arrays = [{"name": name, "dtype": "int64", "shape": [600]} for name in ("input_ids", "attention_mask", "label")]
    found = [
        Dataset.model_validate(UPLOAD | {"id": one, "name": name, "sample_count": 600, "arrays": arrays})
        for one, name in zip(IDS, NAMES, strict=True)
    ]
    print_table(uploads.DATASET_COLUMNS, map(uploads._dataset_row, found), [str(one.id) for one in found])


def show_jobs() -> None:
    recipe = {"recipe": [{"pass": "optimize_graph"}, {"pass": "quantize_static"}]}
    running = {"state": "running", "phase": "calibrating", "progress": 0.45}
    error = {"code": "metric_mismatch", "title": "-", "detail": "-"}
    found = [
        Job.model_validate({**JOB, "id": one, "request": recipe} | more)
        for one, more in zip(IDS, (running, {"state": "failed", "error": error}), strict=True)
    ]
    print_table(jobs.JOB_COLUMNS, map(jobs._job_row, found), [str(one.id) for one in found])


def show_keys() -> None:
    long_ago = NOW - timedelta(days=340)
    known: dict[str, Any] = {"name": "the laptop of mine", "scopes": ["read", "write"], "created_at": long_ago}
    rows = [
        ApiKeyRow(prefix="abcdef012345", expires_at=NOW + timedelta(days=28.5), last_used_at=long_ago, **known),
        ApiKeyRow(prefix="zyxwvu987654", revoked_at=NOW - timedelta(days=400), **known),
    ]
    print_table(keys.COLUMNS, (keys._cells(row, "default") for row in rows))


SHOWN = {
    "models": (show_models, [*map(str, IDS), "mobilenetv2-12.onnx", "11,689,512", "3 h ago"]),
    "datasets": (show_datasets, [*map(str, IDS), "13.59 MiB", "600", "3 h ago"]),
    "jobs": (show_jobs, [*map(str, IDS), "quantize_static", "submitted", "calibrating 45%", "metric_mismatch"]),
    "keys": (show_keys, ["abcdef012345", "zyxwvu987654", "workspace", "11 mo ago", "never", "expires in", "revoked"]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_terminal_of_80_columns_breaks_no_word(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(TERMINAL))
    show, parts = SHOWN[name]
    show()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > TERMINAL] == []
    assert [part for part in parts if not any(part in line for line in lines)] == []
    # A heading, and for each of two records a line, its id's line and what its longest words are folded into.
    assert len(lines) <= 1 + 2 * 4


@pytest.mark.parametrize("name", SHOWN)
def test_piped_each_record_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show, parts = SHOWN[name]
    show()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert [part for part in parts if not any(part in line for line in lines)] == []
    if name != "keys":
        assert [line.split()[-1] for line in lines] == ["id", *map(str, IDS)]


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=20), "now"),
        (timedelta(minutes=5.2), "5 min ago"),
        (timedelta(hours=25), "1 d ago"),
        (timedelta(days=40), "1 mo ago"),
        (timedelta(days=-30.2), "in 30 d"),
    ],
    ids=["seconds", "minutes", "a-day", "a-month", "to-come"],
)
def test_a_time_is_short(ago: timedelta, text: str) -> None:
    assert age_text(datetime.now(UTC) - ago) == text


def test_no_time_is_nothing() -> None:
    assert age_text(None) == ""
