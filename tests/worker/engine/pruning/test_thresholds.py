"""Theta is exact, and ties go by position."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.worker.networks import normal
from worker.engine.pruning import thresholds
from worker.engine.pruning.thresholds import after, below_cut, cut_at_percentile, cut_to_sparsity, magnitude_at

WEIGHTS = [normal(7, 11), normal(5, 3, 2, seed=1) * 100, normal(4, 4, seed=2) * 1e-3, np.zeros((2, 3), np.float32)]
MAGNITUDES = np.sort(np.abs(np.concatenate([one.reshape(-1) for one in WEIGHTS])))


def _removed(weights: list[np.ndarray], sparsity: float) -> list[list[bool]]:
    cut, found = cut_to_sparsity(weights, sparsity), []
    for one in weights:
        found.append(below_cut(one, cut).reshape(-1).tolist())
        cut = after(one, cut)
    return found


@pytest.mark.parametrize("slab", [1 << 22, 10], ids=["whole", "in-slabs"])
def test_a_magnitude_is_found_by_its_rank_as_sorting_would(slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "SLAB_ELEMENTS", slab)
    for rank in range(0, MAGNITUDES.size, 7):
        assert magnitude_at(WEIGHTS, rank) == MAGNITUDES[rank]


@pytest.mark.parametrize("percentile", [1, 33.3, 50, 99.9])
def test_a_percentile_is_that_of_numpy(percentile: float) -> None:
    expected = np.percentile(MAGNITUDES, percentile, method="higher")
    assert cut_at_percentile(WEIGHTS, percentile).theta == expected


def test_what_is_no_number_is_never_small() -> None:
    values = np.array([[np.nan, 3.0], [-np.inf, 1.0]], np.float32)
    assert _removed([values], 0.5) == [[False, True, False, True]]


@dataclass
class Tie:
    id: str
    weights: list[list[float]]
    sparsity: float
    removed: list[list[bool]]


TIES = [
    Tie("first-by-position", [[1, -1, 1, 1]], 0.5, [[True, True, False, False]]),
    Tie("smaller-before-earlier", [[2, 2, 1, 3]], 0.5, [[True, False, True, False]]),
    Tie("over-tensors-in-their-order", [[1, 5], [1, 1]], 0.5, [[True, False], [True, False]]),
    Tie("zeros-count", [[0, 0, 0, 7]], 0.5, [[True, True, False, False]]),
    Tie("nearest-count", [[1, 2, 3]], 0.6, [[True, True, False]]),
    Tie("one-stays", [[1, 2, 3]], 0.99, [[True, True, False]]),
]


@pytest.mark.parametrize("case", TIES, ids=lambda case: case.id)
def test_a_target_is_met_to_the_weight_and_ties_go_by_position(case: Tie) -> None:
    assert _removed([np.array(one, np.float32) for one in case.weights], case.sparsity) == case.removed
