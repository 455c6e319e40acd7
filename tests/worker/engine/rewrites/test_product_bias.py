"""A product by a matrix and the addition of a row behind it are one Gemm; what broadcasts otherwise is not."""

import numpy as np
import pytest

from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import normal, prepared
from worker.engine.rewrites.product_bias import fold_product_bias

WEIGHT = normal(8, 4)


@pytest.mark.parametrize("shape", [(4,), (1, 4)], ids=["row", "matrix-of-one-row"])
@pytest.mark.parametrize("addition", ["y = Add(p, b)", "y = Add(b, p)"], ids=["behind", "before"])
def test_a_row_goes_into_the_product(addition: str, shape: tuple[int, ...]) -> None:
    text = f"network (float[3,8] x) => (float[3,4] y) {{ p = MatMul(x, w) {addition} }}"
    found = apply(fold_product_bias, prepared(text, w=WEIGHT, b=normal(*shape)))
    assert (found.count, found.operators) == (1, {"Gemm": 1})


def test_each_of_a_chain_does() -> None:
    text = (
        "network (float[3,8] x) => (float[3,4] y) "
        "{ p = MatMul(x, w) a = Add(p, b) r = Relu(a) q = MatMul(r, v) y = Add(q, b) }"
    )
    found = apply(fold_product_bias, prepared(text, w=WEIGHT, v=normal(4, 4), b=normal(4)))
    assert (found.count, found.operators) == (2, {"Gemm": 2, "Relu": 1})


@pytest.mark.parametrize(
    ("inputs", "output", "constants"),
    [
        ("float[3,8] x", "3,4", {"w": WEIGHT, "b": normal(3, 1)}),
        ("float[3,8] x", "3,4", {"w": WEIGHT, "b": normal(3, 4)}),
        ("float[3,8] x", "3,4", {"w": WEIGHT, "b": np.float32(1)}),
        ("float[3,8] x", "3,4", {"w": normal(8, 1), "b": normal(4)}),
        ("float[3,8] x", "1,3,4", {"w": WEIGHT, "b": normal(1, 1, 4)}),
        ("float[2,3,8] x", "2,3,4", {"w": WEIGHT, "b": normal(4)}),
        ("float[8] x", "4", {"w": WEIGHT, "b": normal(4)}),
        ("float[3,8] x", "2,3,4", {"w": normal(2, 8, 4), "b": normal(4)}),
        ("float[3,8] x, float[8,4] w", "3,4", {"b": normal(4)}),
        ("float[3,8] x, float[4] b", "3,4", {"w": WEIGHT}),
    ],
    ids=[
        *("column", "matrix", "number", "row-that-widens", "row-of-rank-3"),
        *("rank-3", "rank-1", "stack-of-matrices", "computed-matrix", "computed-row"),
    ],
)
def test_what_a_gemm_would_not_compute_alike_is_left_alone(
    inputs: str, output: str, constants: dict[str, np.ndarray]
) -> None:
    text = f"network ({inputs}) => (float[{output}] y) {{ p = MatMul(x, w) y = Add(p, b) }}"
    found = apply(fold_product_bias, prepared(text, **constants))
    assert (found.count, found.operators) == (0, {"MatMul": 1, "Add": 1})


@pytest.mark.parametrize(
    "text",
    [
        "network (float[3,8] x) => (float[3,4] y, float[3,4] z) { p = MatMul(x, w) y = Add(p, b) z = Relu(p) }",
        "network (float[3,8] x) => (float[3,4] y, float[3,4] p) { p = MatMul(x, w) y = Add(p, b) }",
        "network (float[3,8] x) => (float[3,4] y) { p = MatMul(x, w) y = Add(p, p) }",
        "network (float[3,8] x) => (float[3,4] y) { p = MatMul(x, w) y = Sub(p, b) }",
    ],
    ids=["another-reader", "an-output-too", "doubled", "subtracted"],
)
def test_a_product_that_others_need_is_left_alone(text: str) -> None:
    constants = {"w": WEIGHT} | ({"b": normal(4)} if "b)" in text else {})
    found = apply(fold_product_bias, prepared(text, **constants))
    assert found.count == 0
    assert "Gemm" not in found.operators
