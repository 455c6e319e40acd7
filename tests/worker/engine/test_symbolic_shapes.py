"""Shapes by name: what is known of them is true of every call."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.model_file import ModelFile
from worker.engine.preparation import prepare
from worker.engine.sessions import open_session, run_session
from worker.engine.symbolic_shapes import IncompleteShapes, infer_symbolic

# One side may hold one row for all rows of the other; the runtime lets what comes later use memory again.
MEETING = """network (float[Q,4,8] q, float[D,4,8] d) => (float[B,4,8] y) {
    a = MatMul(q, w) b = Tanh(a) c = MatMul(d, w) e = Tanh(c)
    f = Mul(b, e) g = Sigmoid(f) h = LayerNormalization(g, s) i = Sigmoid(h) y = MatMul(i, w)
}"""
# A table of five positions serves sentences of five words, and of one.
POSITIONS = """network (float[N,S,8] q) => (float[N,5,8] y) {
    a = MatMul(q, w) b = Add(a, places) c = Tanh(b) e = MatMul(c, w) y = Mul(e, e)
}"""

# Two parts, of five columns and of three.
PARTS = """network (float[N,S,8] q) => (float[N,S,8] y) {
    a = MatMul(q, w) parts = SplitToSequence<axis = 2>(a, five) b = SequenceAt(parts, zero) c = SequenceAt(parts, one)
    d = Tanh(b) y = Concat<axis = 2>(c, d)
}"""
COUNTS = {name: np.array(number) for name, number in (("zero", 0), ("one", 1), ("five", 5))}


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }


@pytest.mark.parametrize(
    ("text", "constants", "calls"),
    [
        pytest.param(
            MEETING,
            {"s": normal(8)},
            [((3, 4, 8), (3, 4, 8)), ((1, 4, 8), (8, 4, 8)), ((8, 4, 8), (1, 4, 8))],
            id="two inputs",
        ),
        pytest.param(POSITIONS, {"places": normal(1, 5, 8)}, [((2, 5, 8),), ((2, 1, 8),)], id="a constant"),
        pytest.param(PARTS, COUNTS, [((2, 3, 8),), ((1, 5, 8),)], id="parts"),
    ],
)
def test_a_prepared_model_answers_whatever_the_original_does(
    text: str, constants: dict[str, np.ndarray], calls: list[tuple[tuple[int, ...], ...]], tmp_path: Path
) -> None:
    model = ModelFile(
        networks.save(networks.prepared(text, networks.OPSET, w=normal(8, 8), **constants), tmp_path / "model")
    )
    feeds = [dict(zip("qd", (normal(*shape) for shape in shapes), strict=False)) for shapes in calls]
    made = prepare(model, feeds[0], tmp_path / "scratch", threads=1)
    assert "symbolic shape inference" in made.applied
    sessions = [open_session(file.path, 1) for file in (model, made.model)]
    for feed in feeds:
        (exact,), (answer,) = (run_session(session, feed) for session in sessions)
        np.testing.assert_allclose(answer, exact, rtol=1e-5, atol=1e-6)


def test_axes_that_may_differ_have_names_of_their_own() -> None:
    shapes = _shapes(infer_symbolic(networks.prepared(MEETING, w=normal(8, 8), s=normal(8))))
    assert (shapes["b"], shapes["e"]) == (["Q", 4, 8], ["D", 4, 8])
    assert shapes["f"][1:] == [4, 8]
    assert shapes["f"][0] not in ("Q", "D")
    assert shapes["f"] == shapes["g"] == shapes["h"]
    shapes = _shapes(infer_symbolic(networks.prepared(POSITIONS, w=normal(8, 8), places=normal(1, 5, 8))))
    assert (shapes["a"], shapes["b"]) == (["N", "S", 8], ["N", 5, 8])


def test_axes_that_must_be_equal_are_known_by_the_one_that_is() -> None:
    model = networks.prepared(
        "network (float[N,3] a, float[M,K] b) => (float[P,Q] y) { y = Concat<axis = 0>(a, b) }", c=normal(1)
    )
    inferred = infer_symbolic(model)
    assert inferred.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


def test_an_expanded_axis_is_as_long_as_it_is_asked_to_be() -> None:
    model = networks.prepared(
        "network (float[N,1,K] x) => (float[P,Q,R] y) { s = Expand(x, to) y = Neg(s) }", to=np.array([7, 1])
    )
    assert _shapes(infer_symbolic(model))["s"][:2] == ["N", 7]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("SplitToSequence<axis = -1>(x, five)", ["N", 4, None]),
        ("SplitToSequence<axis = 2>(x)", ["N", 4, 1]),
        ("SplitToSequence<axis = 1, keepdims = 0>(x)", ["N", 8]),
    ],
    ids=["of a size", "single", "single, without the axis"],
)
def test_parts_keep_the_axes_that_are_not_cut(split: str, expected: list[int | str | None]) -> None:
    """One that is cut has a name of its own, which is None here."""
    text = f"network (float[N,4,8] x) => (float y) {{ parts = {split} p = SequenceAt(parts, zero) y = ReduceSum(p) }}"
    shape = _shapes(infer_symbolic(networks.holding(text, **COUNTS)))["p"]
    assert [axis if axis == "N" or isinstance(axis, int) else None for axis in shape] == expected
    assert all(shape)


def test_an_operator_that_nothing_is_known_of_is_said() -> None:
    model = networks.parse("network (float[N,4] x) => (float[N,4] y) { a = foreign.Own(x) y = Neg(a) }")
    model.opset_import.append(onnx.helper.make_opsetid("foreign", 1))
    with pytest.raises(IncompleteShapes):
        infer_symbolic(model)


def test_an_axis_that_bears_a_name_as_ours_are_is_taken_for_no_other(tmp_path: Path) -> None:
    """The product's own axis, and one of the file that is called what it would have been."""
    text = "network (float[A,2,4] x, float[B,4,2] z, float[broadcast_d4,4] w) => (float[C,2,2] y, float[D,4] v) "
    text += "{ y = MatMul(x, z) v = Relu(w) }"
    inferred = infer_symbolic(networks.parse(text))
    assert _face(inferred)["y"][0] not in {"A", "B", "broadcast_d4"}


def _face(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }
