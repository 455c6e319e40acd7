"""What scoring found out in one search serves the next one."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.runner.search.conftest import Runner
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext
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


def test_what_is_no_table_of_scores_stays_in_its_search(runner: Runner, original: ModelFile) -> None:
    context = again(runner.stock)
    assert context.once(("other", original), lambda: 1.5) == 1.5
    assert context.once(("other", original), lambda: 2.5) == 1.5
    assert runner.left() == {}
