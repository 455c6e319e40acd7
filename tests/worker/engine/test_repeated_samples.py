"""The same sample is found wherever it is, and one that is nearly the same is not."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.worker.networks import normal
from worker.engine.feeds import Feeds
from worker.engine.repeated_samples import PART, Samples, distinct, repeated

WIDE = 4 * PART


def samples(**arrays: np.ndarray) -> Samples:
    """All of them, for inputs of float32."""
    count = min((len(array) for array in arrays.values()), default=1)
    dtypes = dict.fromkeys(arrays, "float32")
    return Samples(Feeds(dict(arrays), dtypes, frozenset(), count), np.arange(count))


def found(mine: Samples, *others: Samples) -> list[int]:
    parts = {"mine": mine} | {f"{number}": other for number, other in enumerate(others)}
    return np.flatnonzero(repeated(parts, {"mine": [name for name in parts if name != "mine"]})["mine"]).tolist()


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(lambda rows: rows, id="as it is"),
        pytest.param(lambda rows: rows.astype(np.float64), id="as doubles"),
        pytest.param(np.asfortranarray, id="column by column"),
    ],
)
def test_a_sample_is_found_in_others(stored: Callable[[np.ndarray], np.ndarray]) -> None:
    rows = normal(20, 3, 5)
    assert found(samples(x=stored(rows)), samples(x=rows[[7, 3]]), samples(x=rows[[19]])) == [3, 7, 19]
    assert found(samples(x=rows).at(np.array([3, 4, 5])), samples(x=stored(rows)).at(np.arange(20) % 2 == 0)) == [1]


@pytest.mark.parametrize("place", [0, WIDE // 2, WIDE - 1], ids=["begins", "middle", "ends"])
def test_one_that_differs_in_one_number_is_another(place: int) -> None:
    rows = normal(3, WIDE)
    others = rows.copy()
    others[1, place] += 1
    assert found(samples(x=others), samples(x=rows)) == [0, 2]


def test_all_inputs_have_to_be_the_same() -> None:
    x, y = normal(4, 8), normal(4, 2, seed=1)
    assert found(samples(x=x, y=y), samples(x=x, y=y[[0, 2, 1, 3]])) == [0, 3]


def test_a_model_without_inputs_is_fed_nothing_twice() -> None:
    assert found(samples(), samples()) == []


def test_copies_count_once_and_what_differs_beyond_the_part_that_is_hashed_first_does_not() -> None:
    rows = np.zeros((4, WIDE), np.float32)
    rows[2, 0], rows[3, WIDE // 2] = 1, 1
    assert distinct(samples(x=rows)) == 3
    assert distinct(samples(x=normal(3, 2))) == 3
    assert distinct(samples()) == 1
