"""What the command says of a search, as the API takes it; and what is no such thing."""

from pathlib import Path
from typing import Any

import pytest

from app.cli.search_options import objective_of
from app.cli.submission import shapes_of
from tests.app.cli.conftest import LatheCommand


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param(None, None, id="unsaid"),
        pytest.param("size", "size", id="a name"),
        pytest.param("latency=1,size=0.5", {"latency": 1.0, "size": 0.5}, id="weights"),
        pytest.param(" memory = 2 ", {"memory": 2.0}, id="spaces"),
    ],
)
def test_an_objective_is_a_name_or_weights(text: str | None, wanted: Any) -> None:
    assert objective_of(text) == wanted


def test_shapes_are_sizes_by_input() -> None:
    assert shapes_of(None) is None
    assert shapes_of(["input_ids=1x128", "a=b:0=3"]) == {"input_ids": [1, 128], "a=b:0": [3]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--auto", "--pass", "optimize_graph"], "or --auto", id="two recipes"),
        pytest.param(["--pass", "optimize_graph", "--allow", "compile"], "--auto", id="a search without auto"),
        pytest.param(["--auto", "--max-drop", "0.1", "--floor", "0.9"], "--floor", id="two contracts"),
        pytest.param(["--auto", "--confidence", "0.9"], "--max-drop", id="a confidence alone"),
        pytest.param(["--auto", "--floor", "nan"], "--floor must be a finite number", id="a floor of nothing"),
        pytest.param(["--auto", "--floor", "1", "--confidence", "inf"], "--confidence must be", id="no confidence"),
        pytest.param(["--auto", "--objective", "speed"], "`speed`", id="no objective"),
        pytest.param(["--auto", "--objective", "size=lots"], "`size=lots`", id="no weight"),
        pytest.param(["--auto", "--objective", "size=1,size=2"], "`size=1,size=2`", id="a weight twice"),
        pytest.param(["--auto", "--shape", "tokens"], "`tokens`", id="a shape without sizes"),
        pytest.param(["--auto", "--shape", "tokens=1x"], "`tokens=1x`", id="a size that is none"),
        pytest.param(["--auto", "--shape", "tokens=0x8"], "`tokens=0x8`", id="a size of nothing"),
        pytest.param(["--auto", "--shape", "tokens=" + 5000 * "9"], "`tokens=9", id="a size without end"),
        pytest.param(["--auto", "--shape", "a=1", "--shape", "a=2"], "`a=2`", id="a shape twice"),
    ],
)
def test_what_is_no_search_is_refused_here(
    arguments: list[str], words: str, bare_lathe: LatheCommand, tmp_path: Path
) -> None:
    outcome = bare_lathe("optimize", tmp_path / "model.onnx", *arguments)
    assert outcome.code == 2
    assert words in outcome.stderr
