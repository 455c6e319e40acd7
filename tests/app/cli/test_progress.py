"""What a person sees while a job runs."""

import pytest

from app.cli.progress import watching
from app.cli.trials_table import live_row
from app.client import Job, JobEvent
from app.jobs.report import TrialReport
from tests.app.client.answers import JOB

BAR_ON = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
YELLOW = "\x1b[33m"


def logged(message: str, level: str = "info") -> JobEvent:
    data = {"type": "log", "level": level, "message": message}
    return JobEvent.model_validate({"id": 1, "type": "log", "at": "2026-01-01T00:00:00Z", "data": data})


def phase() -> JobEvent:
    return JobEvent.model_validate({"id": 2, "type": "phase", "at": "2026-01-01T00:00:00Z", "data": {"phase": "x"}})


def tried(name: str) -> list[JobEvent]:
    trial = {"name": name, "recipe": ["p"], "outcome": "tried", "explanation": "2 times as fast, a drop of 0.1"}
    figures = {"seconds": 1.0, "latency_ratio": {"value": 2.0}, "size_ratio": 3.9, "drop": 0.1, "holds": False}
    best = {"trial": trial | figures, "file_name": "net.onnx"}
    return [
        JobEvent.model_validate(
            {"id": 3, "type": "trial", "at": "2026-01-01T00:00:00Z", "data": {"trial": trial | figures}}
        ),
        JobEvent.model_validate({"id": 4, "type": "best", "at": "2026-01-01T00:00:00Z", "data": best}),
    ]


def test_what_a_search_tries_is_told_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = stderr_of(tried("static\x1b[2J"), capsys)
    assert "static [2J: 2 times as fast, a drop of 0.1" in shown
    assert "Best so far, kept as net.onnx: static [2J" in shown


def test_on_a_terminal_what_a_search_tries_is_a_row_below_one_heading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in BAR_ON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = [" ".join(line.split()) for line in stderr_of(tried("static") + tried("dynamic"), capsys).splitlines()]
    assert sum("candidate faster smaller drop" in line for line in lines) == 1
    assert any("static 2.00 x 3.90 x 0.1 broken" in line for line in lines)
    assert any("dynamic 2.00 x 3.90 x 0.1 broken" in line for line in lines)


def test_on_a_terminal_a_trial_that_a_newer_service_tells_otherwise_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in BAR_ON.items():
        monkeypatch.setenv(name, value)
    data = {"trial": {"name": "static", "explanation": "left alone"}}
    event = JobEvent.model_validate({"id": 3, "type": "trial", "at": "2026-01-01T00:00:00Z", "data": data})
    assert "static: left alone" in stderr_of([event], capsys)


def test_on_a_terminal_memory_that_counts_ends_the_row() -> None:
    one = {"name": "static", "recipe": ["p"], "outcome": "tried", "explanation": "", "seconds": 1.0, "holds": True}
    trial = TrialReport.model_validate(one | {"latency_ratio": {"value": 2.0}, "size_ratio": 3.9, "drop": 0.1})
    assert " ".join(live_row(trial).split()) == "static 2.00 x 3.90 x 0.1 kept"
    trial = trial.model_copy(update={"memory_ratio": 1.5})
    assert " ".join(live_row(trial).split()) == "static 2.00 x 3.90 x 0.1 kept, 1.50 x less memory"


def stderr_of(events: list[JobEvent], capsys: pytest.CaptureFixture[str]) -> str:
    with watching() as watch:
        watch.on_update(Job.model_validate({**JOB, "state": "running", "phase": "measuring"}))
        for event in events:
            watch.on_event(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_on_a_terminal_log_lines_stand_above_the_bar_and_warnings_are_yellow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in BAR_ON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = stderr_of([logged("fused 3 nodes"), logged("random input", "warning")], capsys)
    assert f"{YELLOW}random input" in shown
    assert "fused 3 nodes" in shown
    assert f"{YELLOW}fused" not in shown
    assert shown.rindex("measuring") > shown.index("random input") > shown.index("fused 3 nodes")


def test_elsewhere_each_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = stderr_of([logged("fused 3 nodes"), phase(), logged("random input", "warning")], capsys)
    assert shown.splitlines()[1:] == ["fused 3 nodes", "random input"]


def test_what_a_model_is_named_does_not_reach_the_terminal_as_a_control_sequence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = stderr_of([logged("node \x1b[2J\r\nlathe: all is well [red]x[/red]")], capsys)
    assert shown.splitlines()[1:] == ["node  [2J  lathe: all is well [red]x[/red]"]
