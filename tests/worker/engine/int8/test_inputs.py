"""What units are fed, as rows: times the flattened weights they are the product that the runtime computes."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.worker.engine.int8.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine.int8.inputs import LEAST_ROWS, Moments, input_moments, rows_of
from worker.engine.int8.units import Unit, units_of
from worker.engine.int8.weights import as_rows
from worker.engine.model_file import ModelFile

ALL = 10**9


def _unit(model: onnx.ModelProto) -> Unit:
    (unit,) = units_of(ir.from_proto(model))
    return unit


def _products(unit: Unit, rows: np.ndarray) -> np.ndarray:
    """`(n, C)`: rows `(n, G, K)` times the weights of the channels of each group."""
    weights = as_rows(unit.weight_values, unit.channel_axis)
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
    unit = _unit(model)
    found = _products(unit, rows_of(unit, x, ALL, np.random.default_rng(0)))
    expected = np.moveaxis(_run(model, x), 1, -1).reshape(-1, len(weight))
    # Sums of 24 float32 products in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


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
    unit = _unit(model)
    found = _products(unit, rows_of(unit, x, ALL, np.random.default_rng(0)))
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
    unit = _unit(prepared(f"network (float[{sizes}] x) => (float[a,b,c] y) {{ {body} }}", w=weight))
    everything = {row.tobytes() for row in rows_of(unit, x, ALL, np.random.default_rng(0))}
    drawn = [rows_of(unit, x, 40, np.random.default_rng(7)) for _ in range(2)]
    assert len(drawn[0]) == 40
    assert {row.tobytes() for row in drawn[0]} < everything
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_moments_are_those_of_all_rows_however_they_come() -> None:
    rows = normal(1000, 1, 5)
    moments = Moments()
    for part in np.split(rows, [10, 300]):
        moments.add(part, with_products=True)
    flat = rows[:, 0].astype(np.float64)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean[0], flat.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(moments.power[0], np.square(flat).mean(axis=0), rtol=1e-6)
    # Products of a part are summed in float32.
    np.testing.assert_allclose(moments.products, flat.T @ flat, rtol=1e-4, atol=1e-2)


def test_every_unit_gets_the_moments_of_what_it_is_fed(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    text = (
        "network (float[N,4,6,6] x) => (float[N,3] y) "
        "{ c = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) "
        "y = Gemm(f, v) }"
    )
    model = prepared(text, w=normal(4, 1, 3, 3), v=normal(4, 3))
    file = saved(model)
    x = normal(16, 4, 6, 6, seed=2) + 0.5
    weighted = [unit for unit in units_of(file.graph()) if unit.node.op_type in ("Conv", "Gemm")]
    found = {unit.node.op_type: one for unit, one in input_moments(file, weighted, context(model, x=x), 16, True)}

    assert found["Conv"].mean.shape == (4, 9)
    assert found["Conv"].products is None
    # Fewer than are wanted: every place of every sample is a row.
    assert found["Conv"].count == 16 * 36 < LEAST_ROWS
    # The middle of a filter sees every place of its channel once.
    np.testing.assert_allclose(found["Conv"].mean[:, 4], x.mean(axis=(0, 2, 3)), rtol=1e-3)
    assert found["Gemm"].count == 16
    assert found["Gemm"].products is not None
    diagonal = np.diag(found["Gemm"].products) / 16
    np.testing.assert_allclose(diagonal, found["Gemm"].power[0], rtol=1e-4)


def test_fewer_samples_are_read_where_fewer_are_wanted(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    model = prepared("network (float[N,4] x) => (float[N,3] y) { y = Gemm(x, w) }", w=normal(4, 3))
    file = saved(model)
    x = np.repeat(np.arange(1.0, 9.0, dtype=np.float32)[:, None], 4, axis=1)
    ((_, moments),) = input_moments(file, units_of(file.graph()), context(model, x=x), 2, False)
    assert (moments.count, moments.mean.tolist()) == (2, [[1.5] * 4])


def test_a_batch_that_the_model_fixes_yields_as_many_rows(
    saved: Callable[[onnx.ModelProto], ModelFile], context: SamplesContext
) -> None:
    text = "network (float[8,3,32,32] x) => (float[8,4,32,32] y) { y = Conv<pads = [1, 1, 1, 1]>(x, w) }"
    model = prepared(text, w=normal(4, 3, 3, 3))
    file = saved(model)
    given = context(model, x=normal(16, 3, 32, 32))
    ((_, moments),) = input_moments(file, units_of(file.graph()), given, 16, False)
    # Two calls of eight samples, 1024 places each.
    assert moments.count == LEAST_ROWS
