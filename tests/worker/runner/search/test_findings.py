"""What scoring found out in one search serves the next one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.recipes.quantization import QuantizeStatic
from tests.worker import networks
from tests.worker.runner.search.conftest import Runner
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.int8 import static_form
from worker.engine.int8.choosing import Choice
from worker.engine.int8.costs import Costs
from worker.engine.int8.placement import Placement
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import Preparations
from worker.passes.registry import load_pass
from worker.runner.search.findings import Findings, Key
from worker.runner.search.stock import Stock

SCORES = {"h": np.array([0.1 + 0.2, 1e-17, np.inf]), "k": np.zeros(0)}


def key(model: ModelFile, samples: int = 64) -> Key:
    return "obs", model, ("first", "second"), frozenset({"kept", "too"}), samples


def again(given: Stock) -> PassContext:
    """A context of a search that finds what `given` holds; it reads no data."""
    return PassContext(Path(), None, seed=0, threads=1, findings=Findings(given))  # type: ignore[arg-type]


def test_scores_come_back_to_the_last_digit(runner: Runner, original: ModelFile, tmp_path: Path) -> None:
    again(runner.stock).once(key(original), lambda: SCORES)
    elsewhere = save_model(networks.perceptron(), tmp_path / "elsewhere")
    found = again(runner.next()).once(key(elsewhere), lambda: pytest.fail("it was found out before"))
    assert {name: values.tolist() for name, values in found.items()} == {"h": [0.1 + 0.2, 1e-17, np.inf], "k": []}


def test_of_other_samples_or_another_model_they_are_found_out_anew(
    runner: Runner, original: ModelFile, tmp_path: Path
) -> None:
    again(runner.stock).once(key(original), lambda: SCORES)
    later = again(runner.next())
    other = save_model(networks.perceptron(width=24), tmp_path / "other")
    assert later.once(key(original, samples=65), dict) == {}
    assert later.once(key(other), dict) == {}


def test_a_table_to_be_filled_is_kept_once_it_is(runner: Runner, original: ModelFile) -> None:
    context = again(runner.stock)
    table: dict[str, np.ndarray] = context.once(key(original), dict)
    table |= SCORES
    assert runner.left() == {}
    context.findings[key(original)] = table
    assert len(runner.left()) == 1


def test_what_is_no_table_of_scores_stays_in_its_search(runner: Runner, original: ModelFile) -> None:
    context = again(runner.stock)
    assert context.once(("other", original), lambda: 1.5) == 1.5
    assert context.once(("other", original), lambda: 2.5) == 1.5
    assert runner.left() == {}


def test_what_time_cut_short_is_found_out_anew(runner: Runner, original: ModelFile) -> None:
    context = again(runner.stock)

    def hurried() -> dict[str, np.ndarray]:
        assert replace(context, deadline=0.0).lacks(1.0)
        return {"h": np.zeros(1)}

    context.once(key(original), hurried)
    assert context.haste.cut_short
    assert context.once(key(original), lambda: SCORES) == SCORES


def all_in_int8(_prepared: ModelFile, everything: Placement, *_rest: Any) -> Choice:
    """As if measured so: what is measured of so small a model is noise."""
    costs = Costs({unit.name: (2.0, 1.0) for unit in everything.units}, {"image": 0.5})
    return Choice(everything, {"float": [1.0], "everything": [2.0]}, costs)


def test_a_second_static_form_reads_no_data_again_and_times_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights of the same model, from the same ranges and the same times: the same as by itself."""
    model = ModelFile(networks.save(networks.convnet(), tmp_path / "model"))
    images = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)
    feeds = match_arrays(inputs_of(model.structure()), {"image": images}, "the data")
    config = QuantizeStatic.model_validate({"pass": "quantize_static", "weight_clipping": False})
    findings: dict[Key, Any] = {}
    made = []
    monkeypatch.setattr(static_form, "choose_placement", all_in_int8)
    preparations = Preparations(model, tmp_path / "prepared")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        context = PassContext(
            tmp_path / name, feeds, seed=0, threads=1, findings=findings, preparations=preparations, original=model
        )
        made.append(load_pass("quantize_static")(model, config, context))
        monkeypatch.setattr(static_form, "calibrate_by", lambda *_: pytest.fail("it read data again"))
        monkeypatch.setattr(static_form, "choose_placement", lambda *_: pytest.fail("it timed kernels again"))
    first, second = made
    assert first.model.path.read_bytes() == second.model.path.read_bytes()
    assert first.manifest == second.manifest
