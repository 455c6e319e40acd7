"""Rounding for what the weights are multiplied by: less error in the product than rounding to the nearest leaves."""

import numpy as np
import pytest

from tests.worker.networks import normal
from worker.engine.affine import Affine
from worker.engine.int8.rounding import Rounding, bias_shift, codes_of, compensated, searched_map
from worker.engine.int8.weights import Codes, encode, map_of
from worker.engine.moments.moments import Moments
from worker.engine.moments.products import as_rows

NOTHING_LEAST = np.zeros((), np.float32)


def _moments(rows: np.ndarray) -> Moments:
    moments = Moments()
    moments.add(rows, with_products=rows.shape[1] == 1)
    return moments


def _correlated(count: int = 4000, terms: int = 64) -> np.ndarray:
    """Rows `(n, 1, K)`: eight hidden factors and a little noise of their own, as activations are."""
    factors = normal(count, 8, seed=1) @ normal(8, terms, seed=2)
    return (factors + 0.1 * normal(count, terms, seed=3))[:, None]


def _product_error(rows: np.ndarray, weight: np.ndarray, codes: Codes) -> float:
    lost = as_rows(codes.dequantize().astype(np.float64) - weight, codes.axis)
    return float(np.square(rows[:, 0] @ lost.T).sum())


def test_gptq_halves_the_error_of_the_nearest_on_correlated_inputs() -> None:
    rows, weight = _correlated(), normal(32, 64)
    moments = _moments(rows)
    nearest, gptq = (
        _product_error(rows, weight, codes_of(weight, 0, Rounding(clip=False, gptq=on), moments, NOTHING_LEAST))
        for on in (False, True)
    )
    # 56 of 64 directions carry next to nothing: errors can be moved there.
    assert gptq < nearest / 2


@pytest.mark.parametrize("seed", range(3))
def test_gptq_is_no_worse_on_inputs_that_have_nothing_to_do_with_each_other(seed: int) -> None:
    rows, weight = normal(4000, 1, 64, seed=seed), normal(32, 64, seed=seed)
    nearest, gptq = (
        _product_error(rows, weight, codes_of(weight, 0, Rounding(clip=False, gptq=on), _moments(rows), NOTHING_LEAST))
        for on in (False, True)
    )
    # Correlations of 4,000 draws are noise of 1.6 %.
    assert gptq < nearest * 1.03


@pytest.mark.parametrize("terms", [5, 128, 300])
def test_gptq_stays_on_the_grid(terms: int) -> None:
    """Below, at and above the size of a block."""
    rows, weight = _correlated(1000, terms), normal(6, terms)
    affine = map_of(weight)
    products = _moments(rows).products
    assert products is not None
    made = compensated(weight, products, affine)
    np.testing.assert_allclose(affine.dequantize(affine.quantize(made)), made, atol=1e-6)
    assert np.abs(affine.quantize(made)).max() <= 127


def test_terms_that_are_always_zero_are_rounded_to_the_nearest() -> None:
    rows, weight = _correlated(500, 20), normal(4, 20)
    rows[:, :, [3, 11]] = 0
    affine = map_of(weight)
    products = _moments(rows).products
    assert products is not None
    made = compensated(weight, products, affine)
    nearest = affine.dequantize(affine.quantize(weight))
    np.testing.assert_allclose(made[:, [3, 11]], nearest[:, [3, 11]], atol=1e-6)


def test_inputs_that_are_all_zero_leave_the_nearest() -> None:
    weight = normal(4, 20)
    affine = map_of(weight)
    made = compensated(weight, np.zeros((20, 20), np.float32), affine)
    np.testing.assert_allclose(made, affine.dequantize(affine.quantize(weight)), atol=1e-6)


def _weighted_error(rows: np.ndarray, power: np.ndarray, affine: Affine) -> np.ndarray:
    return np.asarray((np.square(affine.dequantize(affine.quantize(rows)) - rows) * power).sum(axis=1))


@pytest.mark.parametrize("per_row", [False, True])
def test_a_searched_scale_has_no_more_error_in_any_channel(per_row: bool) -> None:
    rows = np.random.default_rng(0).standard_t(3, (16, 200)).astype(np.float32)
    power = np.abs(normal(16, 200)) if per_row else np.abs(normal(200))
    full, searched = map_of(rows), searched_map(rows, power)
    before, after = _weighted_error(rows, power, full), _weighted_error(rows, power, searched)
    assert (after <= before).all()
    assert after.sum() < before.sum()
    assert (searched.scale >= 0.6 * full.scale * 0.9999).all()


def test_a_weight_that_nothing_multiplies_may_be_clipped() -> None:
    rows = np.array([[10.0, 0.31, -0.52, 0.77]], np.float32)
    power = np.array([0.0, 1.0, 1.0, 1.0])
    # 0.6 of the largest is as narrow as the search goes.
    assert searched_map(rows, power).scale[0, 0] < map_of(rows).scale[0, 0]


@pytest.mark.parametrize(
    ("shape", "axis", "groups"), [((6, 4, 3, 3), 0, 1), ((6, 1, 3, 3), 0, 6), ((8, 5), 1, 1)], ids=str
)
def test_a_corrected_bias_makes_the_mean_of_each_channel_what_it_was(
    shape: tuple[int, ...], axis: int, groups: int
) -> None:
    weight = normal(*shape)
    rows = normal(3000, groups, weight.size // shape[axis], seed=1) + 1.5
    moments = _moments(rows)
    codes = codes_of(weight, axis, Rounding(clip=False), moments, NOTHING_LEAST)
    shift = bias_shift(weight, codes, moments)
    exact, made = (_channel_means(one, axis, rows) for one in (weight, codes.dequantize()))
    assert np.abs(exact - made).max() > 0.001
    np.testing.assert_allclose(made + shift, exact, atol=1e-4)


def _channel_means(weight: np.ndarray, axis: int, rows: np.ndarray) -> np.ndarray:
    channels = as_rows(weight, axis).astype(np.float64)
    by_group = channels.reshape(rows.shape[1], -1, channels.shape[1])
    return np.asarray(np.einsum("ngk,gck->gc", rows, by_group).reshape(-1) / len(rows))


def test_without_moments_weights_are_rounded_to_the_nearest_by_their_full_range() -> None:
    weight = normal(4, 3, 3, 3)
    codes = codes_of(weight, 0, Rounding(gptq=True), None, NOTHING_LEAST)
    rows = as_rows(weight, 0)
    np.testing.assert_array_equal(codes.codes, encode(rows, map_of(rows), weight.shape, 0).codes)


def test_one_scale_for_all_is_not_searched() -> None:
    rows, weight = _correlated(), normal(32, 64)
    codes = codes_of(weight, 0, Rounding(per_channel=False, clip=True), _moments(rows), NOTHING_LEAST)
    assert len(set(codes.scale.tolist())) == 1
    assert codes.scale[0] == pytest.approx(float(np.abs(weight).max()) / 127)
