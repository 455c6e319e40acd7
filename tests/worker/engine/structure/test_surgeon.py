"""Units go one by one, each time the one that the others can best make up for."""

import numpy as np

from tests.worker.networks import normal
from worker.engine.structure.surgeon import DAMPING, Reader, removal_scores

UNITS = np.arange(6)


def _second(rows: np.ndarray) -> np.ndarray:
    return rows.T.astype(np.float64) @ rows / len(rows)


def test_of_two_units_that_say_the_same_one_goes_for_nothing_and_the_other_does_not() -> None:
    fed = normal(500, 6)
    fed[:, 1] = fed[:, 0]
    scores = removal_scores([Reader(normal(4, 6, seed=1).astype(np.float64), _second(fed), UNITS)], 6)
    first, second = np.sort(scores[:2])
    assert first == scores.min()
    # All that is lost is what damping keeps from being made up for.
    assert first < 2 * DAMPING
    assert second > 10 * first


def test_a_score_is_the_share_of_the_output_that_least_squares_cannot_bring_back() -> None:
    fed, weight = normal(2000, 6), normal(4, 6, seed=1).astype(np.float64)
    fed[:, 3] += fed[:, 2]
    scores = removal_scores([Reader(weight, _second(fed), UNITS)], 6)
    lost = []
    for unit in UNITS:
        left = np.delete(fed, unit, axis=1).astype(np.float64)
        wanted = fed @ weight.T
        found, *_ = np.linalg.lstsq(left, wanted, rcond=None)
        lost.append(np.square(left @ found - wanted).sum() / np.square(wanted).sum())
    # The first to go is scored with all others there; damping of a hundredth is all that differs.
    assert int(np.argmin(scores)) == int(np.argmin(lost))
    np.testing.assert_allclose(scores.min(), min(lost), rtol=0.1)


def test_units_of_several_terms_and_readers_go_as_a_whole() -> None:
    units = np.repeat(np.arange(3), 2)
    fed = normal(500, 6)
    fed[:, 4:] = fed[:, :2] @ normal(2, 2, seed=3)
    silent = Reader(np.zeros((2, 6)), np.eye(6), units)
    scores = removal_scores([Reader(normal(4, 6, seed=1).astype(np.float64), _second(fed), units), silent], 3)
    # The third unit is made of the first: one of the two is not missed.
    assert scores.argmin() in (0, 2)
    assert scores.min() < 2 * DAMPING
    assert np.isinf(scores).sum() == 1
