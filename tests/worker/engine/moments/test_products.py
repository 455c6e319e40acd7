"""Weights as rows: one row an output channel, and back."""

import numpy as np
import pytest

from tests.worker.networks import normal
from worker.engine.moments.products import as_rows, from_rows


@pytest.mark.parametrize(("shape", "axis"), [((4, 3, 3, 3), 0), ((6, 1, 3, 3), 0), ((8, 4), 1), ((4, 8), 0)])
def test_rows_hold_one_channel_each_and_fold_back(shape: tuple[int, ...], axis: int) -> None:
    weight = normal(*shape)
    rows = as_rows(weight, axis)
    assert rows.shape == (shape[axis], weight.size // shape[axis])
    np.testing.assert_array_equal(np.sort(rows[1]), np.sort(np.take(weight, 1, axis).reshape(-1)))
    np.testing.assert_array_equal(from_rows(rows, shape, axis), weight)
