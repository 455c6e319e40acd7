"""Whether a pass did less because time was short: what it made then is not what it makes with time."""

import time
from pathlib import Path

import pytest

from app.recipes.quantization import QuantizeDynamic
from tests.worker import networks
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import save_model
from worker.engine.pass_contract import BudgetExhausted, PassContext, share_of
from worker.passes.registry import load_pass


def context(scratch: Path, seconds: float) -> PassContext:
    model = networks.perceptron()
    feeds = match_arrays(inputs_of(model), {"x": networks.normal(4, 8)}, "rows")
    return PassContext(scratch, feeds, seed=0, threads=1, deadline=time.monotonic() + seconds)


def test_it_is_remembered_when_time_is_short(tmp_path: Path) -> None:
    given = context(tmp_path, 60.0)
    assert not given.lacks(30.0)
    assert not given.haste.cut_short
    # A part of the pass is given a context of its own.
    assert share_of(given, 0.0, 0.5).lacks(90.0)
    assert not given.lacks(30.0)
    assert given.haste.cut_short


def test_a_step_that_is_given_up_is_remembered(tmp_path: Path) -> None:
    given = context(tmp_path, 0.0)
    with pytest.raises(BudgetExhausted):
        given.check_time("this")
    assert given.haste.cut_short


@pytest.mark.parametrize(
    ("seconds", "cut_short"), [pytest.param(5, True, id="short"), pytest.param(600, False, id="long")]
)
def test_a_pass_that_measures_nothing_for_want_of_time_says_so(tmp_path: Path, seconds: float, cut_short: bool) -> None:
    (tmp_path / "scratch").mkdir()
    given = context(tmp_path / "scratch", seconds)
    model = save_model(networks.perceptron(), tmp_path / "model")
    config = QuantizeDynamic.model_validate({"pass": "quantize_dynamic"})
    load_pass("quantize_dynamic")(model, config, given)
    assert given.haste.cut_short is cut_short
