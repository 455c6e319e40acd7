"""Weights in 8 bits: shapes that return, scales that hold what they must, errors within half a step."""

import numpy as np
import pytest

from tests.worker.networks import normal
from worker.engine.int8.weights import (
    LARGEST_INT32,
    Codes,
    bias_codes,
    encode,
    least_scale,
    map_of,
    widened,
)
from worker.engine.moments.products import as_rows

SHAPES = [((4, 3, 3, 3), 0), ((6, 1, 3, 3), 0), ((8, 4), 1), ((4, 8), 0)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_every_weight_moves_by_half_a_step_of_its_channel_at_most(shape: tuple[int, ...], axis: int) -> None:
    weight = normal(*shape)
    rows = as_rows(weight, axis)
    codes = encode(rows, map_of(rows), shape, axis)
    assert (codes.codes.dtype, codes.codes.shape, codes.scale.shape) == (np.int8, shape, (shape[axis],))
    assert np.abs(as_rows(codes.codes, axis)).max(axis=1).tolist() == [127] * shape[axis]
    moved = np.abs(as_rows(codes.dequantize() - weight, axis)).max(axis=1)
    # float32 rounds the quotient: a step and a ten-thousandth.
    assert (moved <= codes.scale / 2 * 1.0001).all()


def test_one_scale_for_all_holds_the_largest_of_all() -> None:
    rows = np.array([[0.1, -0.2], [3.0, 1.0]], np.float32)
    affine = map_of(rows, per_channel=False)
    assert affine.scale.shape == (2, 1)
    assert affine.scale.reshape(-1).tolist() == pytest.approx([3 / 127] * 2)


def test_a_channel_of_zeros_stays_zero() -> None:
    rows = np.array([[0.0, 0.0], [1.0, -2.0]], np.float32)
    codes = encode(rows, map_of(rows), (2, 2), 0)
    assert codes.dequantize()[0].tolist() == [0.0, 0.0]
    assert np.isfinite(codes.scale).all()
    assert (codes.scale > 0).all()


@pytest.mark.parametrize("bias", [1e3, -1e6])
def test_a_scale_is_widened_until_the_bias_fits(bias: float) -> None:
    """A bias is 32 bits of input scale times weight scale: beside tiny weights a large one would wrap around."""
    rows, biases, input_scale = np.full((2, 4), 1e-9, np.float32), np.array([bias, 0.0], np.float32), 1e-4
    plain = encode(rows, map_of(rows), (2, 4), 0)
    wide = encode(rows, widened(map_of(rows), least_scale(biases, input_scale)), (2, 4), 0)
    lost, kept = (bias_codes(biases, input_scale, codes) for codes in (plain, wide))
    assert abs(lost[0][0] * np.float64(lost[1][0]) - bias) > 0.5 * abs(bias)
    assert kept[0][0] * np.float64(kept[1][0]) == pytest.approx(bias, rel=1e-6)
    # Half of the range is left over for corrections.
    assert abs(int(kept[0][0])) <= LARGEST_INT32 / 2 * 1.001
    # The other channel has no bias, and keeps its scale.
    assert wide.scale[1] == plain.scale[1]


def test_without_a_bias_nothing_is_widened() -> None:
    affine = map_of(normal(3, 5))
    np.testing.assert_array_equal(widened(affine, least_scale(None, 0.1)).scale, affine.scale)


def test_bias_codes_stand_for_the_bias_to_half_a_step() -> None:
    codes = Codes(np.ones((3, 2), np.int8), np.array([0.01, 0.5, 2.0], np.float32), 0)
    biases = np.array([-1.234, 5.0, 1e-9], np.float32)
    integers, scale = bias_codes(biases, 0.02, codes)
    assert integers.dtype == np.int32
    np.testing.assert_allclose(scale, codes.scale * np.float32(0.02))
    assert (np.abs(integers * scale.astype(np.float64) - biases) <= scale / 2 * 1.0001).all()
