"""A detector whose candidate finds another number of boxes in a sample has changed there, and is measured still."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation import metrics
from worker.engine.evaluation.acceptance import decide
from worker.engine.evaluation.comparison import compare
from worker.engine.evaluation.requests import ComparisonAnswer

COUNT, CHANGED = 20, 8
# Boxes of two numbers, those whose first is above a threshold: 0 in the original, and in the candidate 0.5.
BOXES = (
    "agraph (float[1, 4, 2] x) => (float[K, 2] y) { all = Reshape (x, boxes) first = Gather <axis = 1> (all, index)"
    " over = Greater (first, least) y = Compress <axis = 0> (all, over) }"
)
CLASSES = (
    "agraph (float[1, 4] x) => (uint8[K] y) { all = Reshape (x, boxes) over = Greater (all, least)"
    " found = Compress <axis = 0> (all, over) y = Cast <to = 2> (found) }"
)


def _compared(
    folder: Path, text: str, x: np.ndarray, metric: str, labels: np.ndarray | None = None
) -> ComparisonAnswer:
    boxes = np.array([-1, *x.shape[2:]])
    original, candidate = (
        networks.holding(text, boxes=boxes, least=np.float32(least), index=np.array(0)) for least in (0, 0.5)
    )
    asked = {"name": metric, "output": "y"} | ({} if labels is None else {"labels": "label"})
    given = {} if labels is None else {"label": labels}
    return compare(comparison(folder, (original, candidate), {"x": x}, asked, given))


def _two_a_sample(*rest: int) -> np.ndarray:
    """What the original finds two of in each sample; in the first samples one of them is 0.25, which is not enough for
    the candidate.
    """
    x = -np.ones((COUNT, 4, *rest), np.float32)
    x[:, (0, 3)] = 3
    x[:CHANGED, 3] = 0.25
    return x


def _told(found: ComparisonAnswer) -> bool:
    return any(f"another shape than the original's in {CHANGED} of {COUNT} samples" in one for one in found.warnings)


def test_those_samples_count_as_changed(tmp_path: Path) -> None:
    found = _compared(tmp_path, BOXES, _two_a_sample(2), "agreement")
    kept = 1 - CHANGED / COUNT
    assert (found.metric_original, found.metric_candidate) == (1.0, pytest.approx(kept))
    assert {one.name: one.value for one in found.candidate}["cosine"] == pytest.approx(kept)
    assert decide(found, "agreement", 0.1, 0.95).outcome == "unmet"
    assert _told(found)


def test_a_single_box_is_changed_where_it_is_lost(tmp_path: Path) -> None:
    """One box looks as one sample of a batch does, and none does not."""
    x = _two_a_sample(2)
    x[:, 0] = -1
    x[CHANGED:, 3] = 3
    assert _compared(tmp_path, BOXES, x, "agreement").metric_candidate == pytest.approx(1 - CHANGED / COUNT)


def test_against_labels_they_are_infinitely_wrong(tmp_path: Path) -> None:
    x = _two_a_sample(2)
    found = _compared(tmp_path, BOXES, x, "mse", x[:, (0, 3)] + np.float32(0.1))
    assert found.metric_original == pytest.approx(0.01, rel=1e-3)
    assert (found.metric_candidate, found.drop) == (None, None)
    assert decide(found, "mse", 0.2, 0.95).outcome == "unmet"
    assert _told(found)


@pytest.mark.parametrize(("metric", "kept"), [("top1", 0.6), ("f1", 3 / 7)])
def test_numbers_of_classes_are_missed(tmp_path: Path, metric: str, kept: float) -> None:
    """Of 32 of class 3 there are 24 left, F1 6 / 7; of class 0, which the first samples alone have, none."""
    x = _two_a_sample()
    found = _compared(tmp_path, CLASSES, x, metric, x[:, (0, 3)].astype(np.int64))
    assert found.metric_original == 1.0
    assert found.metric_candidate == pytest.approx(kept)
    assert _told(found)


def test_noise_is_all_of_both() -> None:
    original, candidate = np.array([[3.0, 4.0], [1.0, np.nan]]), np.array([[1.0, 2.0, 2.0], [np.inf, 0.0, 2.0]])
    signal, noise = metrics.signal_and_noise(original, candidate)
    assert (signal.tolist(), noise.tolist()) == ([25.0, 1.0], [34.0, 5.0])
    assert metrics.broken_samples(original, candidate).tolist() == [False, False]
    assert metrics.broken_samples(original, candidate[::-1]).tolist() == [True, False]
