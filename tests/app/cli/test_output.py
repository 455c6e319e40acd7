"""Names out of strangers' models and datasets, in what is printed."""

import pytest
import typer
from rich.console import Console

from app.cli.exits import ExitCode, fail
from app.cli.layers_table import print_layers
from app.cli.output import note
from app.cli.report_table import print_report
from app.cli.tables import Column, print_table
from app.jobs.report import Report
from tests.app.cli.test_report_table import QUANTIZED, a_report, a_step

NAME = "x\x1b[2J\x1b]52;c;AAAA\x07\nverdict: met"
SHOWN = "x [2J ]52;c;AAAA  verdict: met"


def test_a_name_forges_no_line_and_no_control_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    note(f"takes {NAME}")
    with pytest.raises(typer.Exit):
        fail(NAME, ExitCode.REFUSED)
    print_table([Column("name")], [[NAME]])
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"takes {SHOWN}", f"lathe: {SHOWN}"]
    assert [line.rstrip() for line in captured.out.splitlines()] == ["name", SHOWN]


def _report_about(name: str) -> Report:
    layer = {"name": name, "operator": name, "weight": name, "reason": name}
    step = a_step(name, QUANTIZED | {"notes": [name]}) | {"notes": [name], "layers": [layer]}
    verdict = {"outcome": "unmet", "reason": name, "causes": [name]}
    checks = [{"name": "loads", "outcome": "passed", "words": name}]
    deployment = {"checks": checks, "modules": [name], "seconds": 1.0}
    trial = {"name": name, "recipe": [name], "outcome": "failed", "explanation": name, "seconds": 1.0}
    search = {"explanation": [name], "trials": [trial], "front": [name], "seconds": 1.0, "ended": name}
    more = {"warnings": [name], "data": {"calibration": name}, "deployment": deployment, "search": search}
    return a_report([step], verdict=verdict, **more)


def test_nothing_in_a_report_is_a_control_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    report = _report_about(NAME)
    print_report(Console(width=200), report)
    print_layers(report)
    shown = capsys.readouterr().out
    assert not {character for character in shown if not character.isprintable()} - {"\n"}
    assert next(line for line in shown.splitlines() if line.startswith("verdict: ")) == f"verdict: unmet. {SHOWN}"
    assert shown.count("[2J") >= 15
