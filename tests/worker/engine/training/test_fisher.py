"""Gradients of what a model would answer itself, by weight and sample."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine.model_file import ModelFile
from worker.engine.training.fisher import NothingToFeel, gradient_products

SAMPLES = 400
LINEAR = "network (float[N,3] x) => (float[N,1] y) { y = MatMul(x, w) }"
CLASSES = (
    "network (float[N,3] x) => (float[N,4] y) { a = Gemm(x, w) r = Relu(a) s = Gemm(r, v) y = Softmax<axis = 1>(s) }"
)


def test_numbers_feel_weights_by_their_square_and_that_of_what_they_multiply(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    model = prepared(LINEAR, w=np.array([[2.0], [1.0], [1.0]], np.float32))
    x = normal(SAMPLES, 3) * np.array([1, 1, 3], np.float32)
    found = np.stack([one["w"] for one in gradient_products(saved(model), context(model, x=x), SAMPLES).products])
    assert found.shape == (SAMPLES, 3, 1)
    felt = np.square(found).mean(axis=0).ravel()
    # Of 400 squares of products of two normal draws a mean is good to a sixth.
    np.testing.assert_allclose(felt / felt[1], [4, 1, 9], rtol=0.5)


def test_a_model_that_returns_class_numbers_alone_is_refused(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    text = "network (float[N,3] x) => (int64[N] y) { a = MatMul(x, w) y = ArgMax<axis = 1, keepdims = 0>(a) }"
    model = prepared(text, w=normal(3, 4))
    with pytest.raises(NothingToFeel, match="outputs are y, and none does") as caught:
        gradient_products(saved(model), context(model, x=normal(8, 3)), 8)
    assert caught.value.remedy


def test_what_no_answer_depends_on_is_not_felt(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    last = normal(5, 4, seed=1)
    last[2] = 0
    model = prepared(CLASSES, w=normal(3, 5), v=last)
    file, given = saved(model), context(model, x=normal(64, 3, seed=2))
    found = list(gradient_products(file, given, 64).products)
    by_unit = np.stack([one["w"].sum(axis=0) for one in found])
    felt = np.square(by_unit).mean(axis=0)
    assert felt[2] == 0
    assert (np.delete(felt, 2) > 0).all()
    again = list(gradient_products(file, given, 64).products)
    assert all(
        np.array_equal(left[name], right[name]) for left, right in zip(found, again, strict=True) for name in left
    )


def test_samples_that_are_no_numbers_say_nothing(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    """As many others are taken in their place, and what lies behind those is not read."""
    model = prepared(LINEAR, w=normal(3, 1))
    x = normal(80, 3)
    x[[0, 5, 60], 1] = np.nan
    felt = gradient_products(saved(model), context(model, x=x), 40)
    assert felt.notes == [
        "Left out of `fisher`: 2 of the first 42 samples of the calibration data, fed NaN or infinity in x."
    ]
    found = list(felt.products)
    assert len(found) == 40
    assert all(np.isfinite(one["w"]).all() for one in found)
