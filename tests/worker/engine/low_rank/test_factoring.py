"""Factors of a weight: what they lose is what is said, and on real inputs less than the plain SVD does."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.worker.networks import normal, prepared
from worker.engine.low_rank.decomposition import second_moments, spectrum
from worker.engine.low_rank.factoring import factor
from worker.engine.low_rank.forms import Form, Shape, fits, shape_of, shapes_of
from worker.engine.low_rank.places import Place, find_places
from worker.engine.low_rank.writing import write_factors
from worker.engine.moments.moments import Moments
from worker.engine.moments.rows import rows_of

ALL = 10**9


def _place(model: onnx.ModelProto) -> Place:
    (place,) = find_places(ir.from_proto(model), ("Conv", "Gemm", "MatMul"), ()).places
    return place


def _moments(place: Place, x: np.ndarray) -> Moments:
    moments = Moments()
    moments.add(rows_of(place.product, x, ALL, np.random.default_rng(0)), with_products=True)
    return moments


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], np.float64)


def _written(model: onnx.ModelProto, place: Place, shape: Shape, moments: Moments | None) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    write_factors(graph, {place.name: (shape.form, factor(place, [shape], moments).factors(shape))})
    return ir.to_proto(graph)


@dataclass
class Node:
    """One node on `x`; `low` a weight of low rank in the form's own sense, `ranks` what it takes."""

    id: str
    body: str
    x: np.ndarray
    weight: Callable[[], np.ndarray]
    form: Form
    ranks: tuple[int, ...]
    bias: int | None = None


def _product(outputs: int, inputs: int, rank: int) -> np.ndarray:
    return normal(outputs, rank, seed=3) @ normal(rank, inputs, seed=4)


def _separable() -> np.ndarray:
    """`(6, 4, 3, 2)` as a sum of three products of a column and a row."""
    return np.einsum("rci,nrj->ncij", normal(3, 4, 3, seed=5), normal(6, 3, 2, seed=6)).astype(np.float32)


def _tucker() -> np.ndarray:
    """`(6, 4, 3, 2)` of two mixtures of its inputs and three of its outputs."""
    core = normal(3, 2, 3, 2, seed=7)
    return np.einsum("ns,srij,rc->ncij", normal(6, 3, seed=8), core, normal(2, 4, seed=9)).astype(np.float32)


def _channels() -> np.ndarray:
    return _product(6, 24, 2).reshape(6, 4, 3, 2)


IMAGES, ROWS = normal(2, 4, 9, 10, seed=1), normal(12, 8, seed=1)
EXACT = [
    Node("matmul", "y = MatMul(x, w)", ROWS, lambda: _product(8, 10, 3), "matrix", (3,)),
    Node("stack", "y = MatMul(x, w)", normal(2, 5, 8, seed=1), lambda: _product(8, 10, 3), "matrix", (3,)),
    Node("gemm", "y = Gemm(x, w, b)", ROWS, lambda: _product(8, 10, 3), "matrix", (3,), 10),
    Node("gemm-transposed", "y = Gemm<transB = 1>(x, w, b)", ROWS, lambda: _product(10, 8, 3), "matrix", (3,), 10),
    Node(
        "gemm-scaled",
        "y = Gemm<alpha = 0.5, beta = 2.0>(x, w, b)",
        ROWS,
        lambda: _product(8, 10, 3),
        "matrix",
        (3,),
        10,
    ),
    Node(
        "channels", "y = Conv<pads = [1, 0, 2, 1], strides = [2, 1]>(x, w, b)", IMAGES, _channels, "channels", (2,), 6
    ),
    Node("channels-same", 'y = Conv<auto_pad = "SAME_UPPER">(x, w)', IMAGES, _channels, "channels", (2,)),
    Node("spatial", "y = Conv<pads = [1, 0, 2, 1], strides = [2, 3]>(x, w, b)", IMAGES, _separable, "spatial", (3,), 6),
    Node("spatial-dilated", "y = Conv<dilations = [2, 3]>(x, w)", IMAGES, _separable, "spatial", (3,)),
    Node(
        "spatial-same",
        'y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w)',
        IMAGES,
        _separable,
        "spatial",
        (3,),
    ),
    Node("tucker", "y = Conv<pads = [1, 0, 2, 1], strides = [2, 1]>(x, w, b)", IMAGES, _tucker, "tucker", (2, 3), 6),
    Node("tucker-dilated", "y = Conv<dilations = [2, 1]>(x, w)", IMAGES, _tucker, "tucker", (2, 3)),
]


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.id)
@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no-data"])
def test_a_weight_of_that_rank_is_written_without_a_loss(case: Node, with_data: bool) -> None:
    """Whatever the window, the scales and the bias: two or three nodes answer as the one did."""
    sizes = ",".join(map(str, case.x.shape))
    axes = ",".join("abcd"[: case.x.ndim])
    constants = {"w": case.weight()} | ({} if case.bias is None else {"b": normal(case.bias, seed=2)})
    model = prepared(f"network (float[{sizes}] x) => (float[{axes}] y) {{ {case.body} }}", **constants)
    place = _place(model)
    shape = shape_of(place, case.form, case.ranks)
    assert fits(place, case.form, case.ranks)
    moments = _moments(place, case.x) if with_data else None
    assert factor(place, [shape], moments).options[0].lost < 1e-6
    made = _written(model, place, shape, moments)
    expected = _run(model, case.x)
    # Sums of float32 products in another order, through a product more.
    np.testing.assert_allclose(_run(made, case.x), expected, atol=1e-4 * np.abs(expected).max())
    held = {tensor.name: tensor for tensor in made.graph.initializer}
    assert "w" not in held
    assert sum(int(np.prod(held[name].dims)) for name in held if name.startswith("w/")) == shape.parameters
    onnx.checker.check_model(made)


@pytest.mark.parametrize(
    ("form", "ranks"),
    [("channels", (3,)), ("spatial", (4,)), ("tucker", (3, 4))],
    ids=["channels", "spatial", "tucker"],
)
def test_what_is_said_to_be_lost_is_what_real_inputs_lose(form: Form, ranks: tuple[int, ...]) -> None:
    x = _uneven(normal(8, 4, 9, 10, seed=1))
    model = prepared("network (float[8,4,9,10] x) => (float[a,b,c,d] y) { y = Conv(x, w) }", w=normal(6, 4, 3, 2))
    place = _place(model)
    moments = _moments(place, x)
    shape = shape_of(place, form, ranks)
    expected = _run(model, x)
    lost = np.sum((_run(_written(model, place, shape, moments), x) - expected) ** 2) / np.sum(expected**2)
    # The damping of the moments is a hundredth of a term's mean power.
    assert factor(place, [shape], moments).options[0].lost == pytest.approx(lost, rel=0.15)
    plain = np.sum((_run(_written(model, place, shape, None), x) - expected) ** 2) / np.sum(expected**2)
    assert lost < plain


def test_the_discarded_singular_values_are_the_error_of_a_product() -> None:
    """C. Eckart, G. Young: nothing of that rank loses less on these inputs."""
    x = normal(500, 8, seed=1) * np.array([10, 5, 3, 1, 1, 0.5, 0.1, 0.1], np.float32)
    weight = normal(8, 12).astype(np.float64)
    moments = x.T.astype(np.float64) @ x / len(x)
    found = spectrum(weight.T, moments)
    made = (found.vectors[:, :3] @ found.vectors[:, :3].T @ weight.T).T
    singular = np.linalg.svd(x @ weight, compute_uv=False)
    assert found.lost(3) == pytest.approx(np.sum(singular[3:] ** 2) / np.sum(singular**2), rel=1e-4)
    assert np.sum((x @ weight - x @ made) ** 2) == pytest.approx(np.sum(singular[3:] ** 2), rel=1e-4)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)], ids=["wide", "tall"])
def test_both_sides_of_the_problem_give_the_same_answer(shape: tuple[int, int]) -> None:
    weight, x = normal(*shape).astype(np.float64), normal(50, shape[1], seed=1).astype(np.float64)
    found = spectrum(weight, x.T @ x)
    singular = np.linalg.svd(x @ weight.T, compute_uv=False)
    np.testing.assert_allclose(found.energies[: min(shape)], singular[: min(shape)] ** 2, rtol=1e-8)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(min(shape)), atol=1e-8)


def test_inputs_that_are_always_zero_keep_a_solvable_problem() -> None:
    model = prepared("network (float[20,8] x) => (float[20,12] y) { y = MatMul(x, w) }", w=normal(8, 12))
    place = _place(model)
    shape = shape_of(place, "matrix", (2,))
    made = _written(model, place, shape, _moments(place, np.zeros((20, 8), np.float32)))
    assert np.isfinite(_run(made, normal(20, 8))).all()
    assert (np.diag(second_moments(_moments(place, np.zeros((20, 8), np.float32)), 8)) > 0).all()


@pytest.mark.parametrize(
    ("size", "step"), [("float[1,64] x", 16), ("float[1,64] x", 1), ("float[1,64,9,9] x", 16), ("float[1,64,9,9] x", 4)]
)
def test_only_ranks_that_are_worth_while_are_considered(size: str, step: int) -> None:
    images = "9" in size
    weight = normal(96, 64, 3, 3) if images else normal(64, 96)
    body = "y = Conv<strides = [2, 2]>(x, w)" if images else "y = MatMul(x, w)"
    place = _place(prepared(f"network ({size}) => (float[{'a,b,c,d' if images else 'a,b'}] y) {{ {body} }}", w=weight))
    found = shapes_of(place, step)
    assert {shape.form for shape in found} == ({"channels", "spatial", "tucker"} if images else {"matrix"})
    for shape in found:
        assert max(shape.parameters, shape.products) < 0.7 * weight.size
        assert all(rank % step == 0 for rank in shape.ranks)
        assert fits(place, shape.form, shape.ranks)
    assert len(found) <= 150


def _uneven(x: np.ndarray) -> np.ndarray:
    """Channels of different size that move together: what a plain SVD does not see."""
    mixture = np.eye(x.shape[1], dtype=np.float32) * np.array([4, 2, 1, 0.25], np.float32)
    mixture[0, 1] = mixture[1, 2] = 1.5
    return np.einsum("nchw,cd->ndhw", x, mixture).astype(np.float32)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (1, 3), (3, 1)], ids=lambda kernel: f"{kernel[0]}x{kernel[1]}")
def test_every_shape_that_is_considered_has_factors(kernel: tuple[int, int]) -> None:
    """A few mixtures through a small window cannot feed as many outputs as there are."""
    weight = normal(96, 24, *kernel)
    place = _place(prepared("network (float[1,24,9,9] x) => (float[a,b,c,d] y) { y = Conv(x, w) }", w=weight))
    shapes = shapes_of(place, 4)
    made = factor(place, shapes, _moments(place, normal(2, 24, 9, 9)))
    assert len(made.options) == len(shapes) > 0
    for shape in shapes:
        assert sum(one.size for one in made.factors(shape)) == shape.parameters


def test_a_rank_beyond_that_of_the_weight_adds_nothing() -> None:
    weight = _product(96, 24, 3).T.copy()
    place = _place(prepared("network (float[5,24] x) => (float[5,96] y) { y = MatMul(x, w) }", w=weight))
    first, last = factor(place, [shape_of(place, "matrix", (8,))], None).factors(shape_of(place, "matrix", (8,)))
    assert (first.shape, last.shape) == ((24, 8), (8, 96))
    np.testing.assert_allclose(first @ last, weight, atol=1e-4)
