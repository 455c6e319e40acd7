"""Rows of floats whose top class says nothing, as a regression's: agreement asks for more than that."""

from pathlib import Path

import numpy as np

from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation.acceptance import decide
from worker.engine.evaluation.comparison import compare
from worker.engine.evaluation.requests import ComparisonAnswer

X = networks.normal(400, 8)
WEIGHT = networks.normal(8, 4)
# The first of four targets is always the largest.
TARGETS = np.array([30, 0, 0, 0], np.float32)
NO_SCORES = "is the same in nearly all samples"


def compared(folder: Path, bias: np.ndarray, scale: np.ndarray) -> ComparisonAnswer:
    """Of `x` (N, 8) -> `y` (N, 4), and of the same with columns that are so many times as large."""
    text = "network (float[N, 8] x) => (float[N, 4] y) { p = MatMul (x, w) q = Add (p, b) y = Mul (q, s) }"
    original, candidate = (
        networks.prepared(text, w=WEIGHT, b=bias, s=one.astype(np.float32)) for one in (np.ones(4), scale)
    )
    asked = {"name": "agreement", "output": "y"}
    return compare(comparison(folder, (original, candidate), {"x": X}, asked, batch=8))


def test_a_ruined_regression_with_the_same_largest_target_does_not_agree(tmp_path: Path) -> None:
    found = compared(tmp_path, TARGETS, np.array([0.6, -2, 0, 9]))
    assert found.metric_candidate is not None and found.metric_candidate < 0.5
    assert decide(found, "agreement", 0.01, 0.95).outcome == "unmet"
    assert [warning for warning in found.warnings if NO_SCORES in warning]


def test_one_that_is_nearly_as_it_was_agrees(tmp_path: Path) -> None:
    found = compared(tmp_path, TARGETS, np.array([1.01, 0.99, 0.98, 1.02]))
    assert found.metric_candidate == 1
    assert decide(found, "agreement", 0.01, 0.95).outcome == "met"


def test_of_scores_of_classes_the_top_one_is_all_that_is_asked_for(tmp_path: Path) -> None:
    """Trained further, a classifier is surer of the same classes."""
    found = compared(tmp_path, np.zeros(4, np.float32), np.full(4, 3.0))
    assert (found.metric_candidate, found.warnings) == (1, [])
