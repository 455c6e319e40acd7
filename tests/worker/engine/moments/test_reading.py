"""Moments of what products are fed, over real calls of a model."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine.extent import Extent
from worker.engine.graph_file import read_graph
from worker.engine.model_file import ModelFile
from worker.engine.moments import reading
from worker.engine.moments.moments import Moments
from worker.engine.moments.products import Product
from worker.engine.moments.reading import LEAST_ROWS, cross_moments, input_moments

WEIGHTS = {"w": normal(5, 4), "v": normal(4, 3)}


def _products(model: ModelFile) -> list[Product]:
    """Of every node with a constant matrix or filter."""
    nodes = [node for node in read_graph(model).graph if len(node.inputs) > 1 and node.inputs[1] is not None]
    return [Product(node, tuple(node.inputs[1].const_value.shape.numpy())) for node in nodes]


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


def test_every_product_gets_the_moments_of_what_it_is_fed(
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
    read = input_moments(file, _products(file), context(model, x=x), 16, True)
    found = {product.node.op_type: one for product, one in read}

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


def test_between_too_many_terms_nothing_is_kept(
    saved: Callable[..., ModelFile], context: SamplesContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_TERMS", 4)
    text = "network (float[N,5] x) => (float[N,3] y) { h = Gemm(x, w) y = Gemm(h, v) }"
    file = saved(prepared(text, w=normal(5, 4), v=normal(4, 3)))
    given = context(prepared(text, w=normal(5, 4), v=normal(4, 3)), x=normal(16, 5))
    wide, narrow = (one for _, one in input_moments(file, _products(file), given, 16, True))
    assert wide.products is None
    assert wide.power.shape == (1, 5)
    assert narrow.products is not None
    pairs = [(product, product.node.outputs[0].name or "") for product in _products(file)]
    assert [product.terms for product, _ in cross_moments(file, pairs, file, given, 16)] == [4]


def test_fewer_samples_are_read_where_fewer_are_wanted(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    model = prepared("network (float[N,4] x) => (float[N,3] y) { y = Gemm(x, w) }", w=normal(4, 3))
    file = saved(model)
    x = np.repeat(np.arange(1.0, 9.0, dtype=np.float32)[:, None], 4, axis=1)
    ((_, moments),) = input_moments(file, _products(file), context(model, x=x), 2, False)
    assert (moments.count, moments.mean.tolist()) == (2, [[1.5] * 4])


def test_a_batch_that_the_model_fixes_yields_as_many_rows(
    saved: Callable[[onnx.ModelProto], ModelFile], context: SamplesContext
) -> None:
    text = "network (float[8,3,32,32] x) => (float[8,4,32,32] y) { y = Conv<pads = [1, 1, 1, 1]>(x, w) }"
    model = prepared(text, w=normal(4, 3, 3, 3))
    file = saved(model)
    given = context(model, x=normal(16, 3, 32, 32))
    ((_, moments),) = input_moments(file, _products(file), given, 16, False)
    # Two calls of eight samples, 1024 places each.
    assert moments.count == LEAST_ROWS


def test_cross_moments_fit_what_one_model_reads_to_what_another_gives(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    """The product of a model whose input was bent, fitted to what the straight one gives: the bend is undone."""
    text = "network (float[N,5] x) => (float[N,3] y) {{ h = Mul({}, s) y = MatMul(h, w) }}"
    weight, scale = normal(5, 3), np.array([1, 2, 0.5, 3, 1], np.float32)
    straight = prepared(text.format("x"), s=scale, w=weight)
    bent = prepared(text.format("x"), s=scale[::-1].copy(), w=weight)
    x = normal(300, 5, seed=4) + 1
    wanted, fed = saved(straight), saved(bent, "bent")
    product = _products(fed)[-1]
    ((_, moments),) = cross_moments(fed, [(product, "y")], wanted, context(straight, x=x), 300)
    assert moments.inputs.count == 300
    assert moments.inputs.products is not None
    fitted = moments.cross @ np.linalg.inv(moments.inputs.products)
    # Sums of 300 float32 products.
    np.testing.assert_allclose(fitted, weight.T * (scale / scale[::-1]), rtol=1e-3, atol=1e-3)
    expected = (x * scale) @ weight
    np.testing.assert_allclose(moments.total, expected.sum(axis=0), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(moments.squares, np.square(expected).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2], ids=["one pass over the data", "two"])
def test_a_reader_out_of_time_makes_one_call_and_is_repeated_by_what_it_read(
    groups: int, saved: Callable[..., ModelFile], context: SamplesContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    if groups > 1:
        monkeypatch.setattr(reading, "GROUP_ELEMENTS", 1)
    model = prepared("network (float[N,5] x) => (float[N,3] y) { h = Gemm(x, w) y = Gemm(h, v) }", **WEIGHTS)
    file, given, extent = saved(model), context(model, x=normal(16, 5)), Extent(seconds=0.0)
    short = [one for _, one in input_moments(file, _products(file), given, 16, True, extent)]
    assert extent.samples == 1
    assert given.haste.cut_short
    again = [one for _, one in input_moments(file, _products(file), given, 16, True, Extent(1))]
    for left, right in zip(short, again, strict=True):
        assert left.count == right.count == 1
        np.testing.assert_array_equal(left.products, right.products)


def test_a_reader_with_time_reads_all(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    model = prepared("network (float[N,5] x) => (float[N,3] y) { h = Gemm(x, w) y = Gemm(h, v) }", **WEIGHTS)
    file, given, extent = saved(model), context(model, x=normal(16, 5)), Extent(seconds=600.0)
    assert [one.count for _, one in input_moments(file, _products(file), given, 16, True, extent)] == [16, 16]
    assert (extent.samples, given.haste.cut_short) == (16, False)
