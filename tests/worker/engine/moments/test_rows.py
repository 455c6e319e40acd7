"""Rows of products: times the flattened weights they are what the runtime computes."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.worker.networks import normal, prepared
from worker.engine.moments.products import Product, as_rows
from worker.engine.moments.rows import drawn_rows, results_at, rows_of

ALL = 10**9


def _product(model: onnx.ModelProto, weight: np.ndarray) -> Product:
    (node,) = ir.from_proto(model).graph
    return Product(node, weight.shape)


def _products(product: Product, weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`(n, C)`: rows `(n, G, K)` times the weights of the channels of each group."""
    weights = as_rows(weight, product.channel_axis)
    groups = rows.shape[1]
    by_group = weights.reshape(groups, len(weights) // groups, -1)
    return np.einsum("ngk,gck->ngc", rows, by_group).reshape(len(rows), -1)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "pads = [1, 1, 1, 1]",
        "pads = [0, 1, 2, 3]",
        "strides = [2, 2]",
        "strides = [2, 3], pads = [1, 0, 0, 1]",
        "dilations = [2, 2]",
        "dilations = [1, 3], strides = [2, 1], pads = [2, 1, 0, 3]",
        'auto_pad = "SAME_UPPER"',
        'auto_pad = "SAME_LOWER"',
        'auto_pad = "SAME_UPPER", strides = [2, 3]',
        'auto_pad = "SAME_LOWER", strides = [3, 2]',
        'auto_pad = "VALID", strides = [2, 2]',
        'auto_pad = "NOTSET", pads = [1, 2, 1, 2]',
    ],
)
@pytest.mark.parametrize(
    ("group", "weight"),
    [(1, normal(6, 4, 3, 2)), (2, normal(6, 2, 3, 2)), (4, normal(8, 1, 3, 2))],
    ids=["whole", "grouped", "depthwise"],
)
def test_rows_times_weights_are_the_convolution(group: int, weight: np.ndarray, attributes: str) -> None:
    given = ", ".join(filter(None, [f"group = {group}", attributes]))
    model = prepared(f"network (float[2,4,9,10] x) => (float[a,b,c,d] y) {{ y = Conv<{given}>(x, w) }}", w=weight)
    x = normal(2, 4, 9, 10, seed=1)
    product = _product(model, weight)
    found = _products(product, weight, rows_of(product, x, ALL, np.random.default_rng(0)))
    expected = np.moveaxis(_run(model, x), 1, -1).reshape(-1, len(weight))
    # Sums of 24 float32 products in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "strides = {two}, pads = {pads}",
        "dilations = {two}, pads = {pads}",
        'auto_pad = "SAME_UPPER", strides = {two}',
        'auto_pad = "VALID"',
    ],
)
@pytest.mark.parametrize("space", [(10,), (5, 7, 6)], ids=["one-axis", "three-axes"])
@pytest.mark.parametrize("group", [1, 2], ids=["whole", "grouped"])
def test_rows_over_one_axis_and_three_are_those_of_the_convolution(
    group: int, space: tuple[int, ...], attributes: str
) -> None:
    axes = len(space)
    weight = normal(6, 4 // group, *(3, 2, 2)[:axes])
    given = attributes.format(two=[2] * axes, pads=[*range(axes), *[2] * axes])
    given = ", ".join(filter(None, [f"group = {group}", given]))
    sizes = ",".join(map(str, (2, 4, *space)))
    model = prepared(f"network (float[{sizes}] x) => (float[a,b,c] y) {{ y = Conv<{given}>(x, w) }}", w=weight)
    product, x = _product(model, weight), normal(2, 4, *space, seed=1)
    rows, places = drawn_rows(product, x, 20, np.random.default_rng(0))
    found = _products(product, weight, rows)
    np.testing.assert_allclose(found, results_at(product, _run(model, x), places), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "inputs", "weight"),
    [
        ("y = MatMul(x, w)", "5,8", normal(8, 3)),
        ("y = MatMul(x, w)", "2,5,8", normal(8, 3)),
        ("y = Gemm(x, w)", "5,8", normal(8, 3)),
        ("y = Gemm<transB = 1>(x, w)", "5,8", normal(3, 8)),
    ],
    ids=["matrix", "stack", "gemm", "transposed"],
)
def test_rows_times_weights_are_the_product(body: str, inputs: str, weight: np.ndarray) -> None:
    model = prepared(f"network (float[{inputs}] x) => (float[{inputs[:-1]}3] y) {{ {body} }}", w=weight)
    x = normal(*map(int, inputs.split(",")), seed=1)
    product = _product(model, weight)
    found = _products(product, weight, rows_of(product, x, ALL, np.random.default_rng(0)))
    np.testing.assert_allclose(found, _run(model, x).reshape(-1, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "x", "weight"),
    [
        ("y = Conv<pads = [1, 1, 1, 1]>(x, w)", normal(3, 4, 9, 9), normal(6, 4, 3, 3)),
        ("y = MatMul(x, w)", normal(3, 50, 8), normal(8, 3)),
    ],
    ids=["convolution", "product"],
)
def test_a_sample_is_of_the_rows_and_the_same_for_the_same_seed(body: str, x: np.ndarray, weight: np.ndarray) -> None:
    sizes = ",".join(map(str, x.shape))
    product = _product(prepared(f"network (float[{sizes}] x) => (float[a,b,c] y) {{ {body} }}", w=weight), weight)
    everything = {row.tobytes() for row in rows_of(product, x, ALL, np.random.default_rng(0))}
    drawn = [rows_of(product, x, 40, np.random.default_rng(7)) for _ in range(2)]
    assert len(drawn[0]) == 40
    assert {row.tobytes() for row in drawn[0]} < everything
    np.testing.assert_array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("body", "inputs", "weight"),
    [
        ("y = Conv<strides = [2, 1], pads = [1, 0, 0, 1]>(x, w)", "3,4,9,10", normal(6, 4, 3, 2)),
        ("y = MatMul(x, w)", "2,50,8", normal(8, 3)),
    ],
    ids=["convolution", "product"],
)
def test_results_are_found_at_the_places_that_were_drawn(body: str, inputs: str, weight: np.ndarray) -> None:
    dims = ",".join("abcd"[: inputs.count(",") + 1])
    model = prepared(f"network (float[{inputs}] x) => (float[{dims}] y) {{ {body} }}", w=weight)
    x = normal(*map(int, inputs.split(",")), seed=1)
    product = _product(model, weight)
    rows, places = drawn_rows(product, x, 40, np.random.default_rng(0))
    assert len(places) == 40
    found = results_at(product, _run(model, x), places)
    np.testing.assert_allclose(found, _products(product, weight, rows), rtol=1e-4, atol=1e-5)
