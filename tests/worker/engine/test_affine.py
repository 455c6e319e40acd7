"""The affine map: its worked example, its exact zero, and its error bound."""

import numpy as np
import pytest

from worker.engine.affine import signed, unsigned


def test_the_worked_example_of_the_textbook() -> None:
    affine = unsigned(-0.8, 1.2)
    assert float(affine.scale) == pytest.approx(0.0078, abs=5e-5)
    assert int(affine.zero_point) == 102
    code = affine.quantize(np.array([0.6], np.float32))
    assert int(code[0]) in (178, 179)
    assert float(affine.dequantize(code)[0]) == pytest.approx(0.60, abs=float(affine.scale) / 2)


@pytest.mark.parametrize(("low", "high"), [(-0.8, 1.2), (0.3, 5.0), (-4.0, -1.0), (0.0, 0.0), (0.0, 6.0)])
def test_zero_is_exact_whatever_the_range(low: float, high: float) -> None:
    affine = unsigned(low, high)
    assert float(affine.dequantize(affine.quantize(np.zeros(1, np.float32)))[0]) == 0.0


@pytest.mark.parametrize("bits", [8, 7, 16])
def test_values_inside_the_range_move_by_half_a_step_at_most(bits: int) -> None:
    values = np.linspace(-3, 5, 1001).astype(np.float32)
    affine = unsigned(-3, 5, bits)
    moved = np.abs(affine.dequantize(affine.quantize(values)) - values)
    # At the ends the rounded zero point may cost half a step more.
    assert moved.max() <= float(affine.scale) * 1.001


@pytest.mark.parametrize("high", [6.0, 1.0, 0.3, 1e-3, 255.0])
def test_no_code_stands_for_more_than_the_upper_end_of_a_range_from_zero(high: float) -> None:
    affine = unsigned(0.0, high)
    assert float(affine.dequantize(np.array([255]))[0]) <= high


def test_symmetric_scales_follow_each_channel_and_hold_its_largest_weight() -> None:
    weights = np.array([[1.0, -2.0], [0.25, 0.1], [0.0, 0.0]], np.float32)
    affine = signed(np.abs(weights).max(axis=1, keepdims=True))
    codes = affine.quantize(weights)
    np.testing.assert_array_equal(np.abs(codes).max(axis=1), [127, 127, 0])
    np.testing.assert_allclose(affine.dequantize(codes), weights, atol=2 / 127 / 2)
