"""A candidate that answers NaN where its original has numbers loses those samples, whatever they are scored by."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation.acceptance import decide
from worker.engine.evaluation.comparison import compare
from worker.engine.evaluation.requests import ComparisonAnswer

COUNT, BROKEN = 600, 300
ORIGINAL = "agraph (float[N, 4] x) => (float[N, 4] y) { y = Identity (x) }"
# x where it is not negative, NaN elsewhere.
CANDIDATE = "agraph (float[N, 4] x) => (float[N, 4] y) { s = Sqrt (x) y = Mul (s, s) }"


def _compared(folder: Path, metric: str, x: np.ndarray, labels: np.ndarray) -> ComparisonAnswer:
    models, asked = (networks.parse(ORIGINAL), networks.parse(CANDIDATE)), {"name": metric, "output": "y"}
    return compare(comparison(folder, models, {"x": x}, asked | {"labels": "label"}, {"label": labels}))


def _answers() -> np.ndarray:
    """Rows whose largest number stands first or last, by turns; of the first half the second number is negative."""
    x = np.abs(networks.normal(COUNT, 4)) + 0.1
    x[np.arange(COUNT), np.where(np.arange(COUNT) % 2, 3, 0)] += 10
    x[:BROKEN, 1] *= -1
    return x.astype(np.float32)


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_its_error_is_no_number_and_keeps_no_contract(tmp_path: Path, metric: str) -> None:
    x = _answers()
    labels = x + networks.normal(COUNT, 4, seed=1) * np.float32(0.1)
    found = _compared(tmp_path, metric, x, labels)
    assert found.metric_original is not None
    assert (found.metric_candidate, found.drop, found.drop_below) == (None, None, None)
    assert decide(found, metric, 0.2, 0.95).outcome == "unmet"
    assert "Infinity" not in found.model_dump_json()
    assert ComparisonAnswer.model_validate_json(found.model_dump_json()) == found
    assert any(f"NaN or infinite in {BROKEN} of {COUNT} samples" in warning for warning in found.warnings)


@pytest.mark.parametrize(("metric", "kept"), [("top1", 0.5), ("accuracy", 0.5), ("f1", 2 / 3)])
def test_its_classes_are_missed(tmp_path: Path, metric: str, kept: float) -> None:
    """The half that is left is right: F1 of either class is 2 * 150 / (2 * 150 + 150)."""
    x = _answers()
    found = _compared(tmp_path, metric, x, np.argmax(x, axis=1))
    assert found.metric_original == 1.0
    assert found.metric_candidate == pytest.approx(kept)
    assert decide(found, metric, 0.1, 0.95).outcome == "unmet"


def test_samples_without_a_label_stay_without_a_score(tmp_path: Path) -> None:
    x = _answers()
    labels = {"mse": x + np.float32(0.1), "top1": np.argmax(x, axis=1)}
    labels["mse"][:BROKEN, 0] = np.nan
    labels["top1"][:BROKEN] = -1
    for metric, truth in labels.items():
        found = _compared(tmp_path / metric, metric, x, truth)
        assert found.scored_samples == COUNT - BROKEN
        assert {one.sample_count for one in found.candidate if one.labels} == {COUNT - BROKEN}
        assert {one.sample_count for one in found.candidate if not one.labels} == {COUNT}
        # But for the rounding of a square root and its square.
        assert found.drop == pytest.approx(0.0, abs=1e-4)
