"""A graph in float16: where it begins and ends, what stays float32, and that it answers the same."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from tests.worker.networks import normal, prepared
from worker.engine.float16.conversion import to_float16
from worker.engine.float16.signatures import Half, float_tensors, half_of
from worker.engine.graph import nodes_of
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session

# 11 bits of significand: 66 dB a rounding, of which there are a few.
FLOOR_DB = 50.0
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


@dataclass(frozen=True)
class Converted:
    """`casts` counts Cast nodes by the type that they make."""

    model: onnx.ModelProto
    casts: Counter[int]
    before: list[np.ndarray]
    after: list[np.ndarray]

    def kinds(self, *outputs: str) -> list[int]:
        """Element types of tensors of the main graph."""
        graph = self.model.graph
        known = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
        return [known[name] for name in outputs]

    def sqnr_db(self) -> float:
        pairs = zip(self.before, self.after, strict=True)
        ratios = [np.square(b - a.astype(np.float64)).sum() / np.square(b.astype(np.float64)).sum() for b, a in pairs]
        return float(-10 * np.log10(max(ratios) + 1e-20))


def _convert(
    model: onnx.ModelProto, feed: dict[str, np.ndarray], folder: Path, kept: Collection[str] = (), keep_io: bool = True
) -> Converted:
    file = ModelFile(networks.save(model, folder / "model"))
    graph = read_graph(file)
    to_float16(graph, kept, keep_io)
    made = save_graph(graph, folder / "made")
    onnx.checker.check_model(str(made.path), full_check=True)
    loaded = made.load()
    casts = Counter(
        attribute.i for node in nodes_of(loaded.graph) if node.op_type == "Cast" for attribute in node.attribute
    )
    given = feed if keep_io else {name: array.astype(np.float16) for name, array in feed.items()}
    before = run_session(open_session(file.path, 1), feed)
    return Converted(loaded, casts, before, run_session(open_session(made.path, 1), given))


def test_casts_stand_at_the_borders_alone(tmp_path: Path) -> None:
    model = prepared(
        "network (float[N,8] x) => (float[N,8] y, float[N,8] z)"
        "{ a = MatMul(x, w) b = Relu(x) c = Add(a, b) y = MatMul(c, w) z = Sigmoid(c) }",
        w=normal(8, 8) / 3,
    )
    made = _convert(model, {"x": normal(4, 8)}, tmp_path)
    assert made.casts == {HALF: 1, SINGLE: 2}
    assert made.kinds("a", "b", "c", "y", "z") == [HALF, HALF, HALF, SINGLE, SINGLE]
    assert [tensor.data_type for tensor in made.model.graph.initializer] == [HALF]
    assert made.sqnr_db() > FLOOR_DB


def test_between_nodes_kept_in_float32_nothing_is_rounded(tmp_path: Path) -> None:
    """`big` would be infinite in float16, and so would the constant."""
    model = prepared(
        "network (float[N,8] x) => (float[N,8] y) { a = Relu(x) big = Mul(a, k) r = Sqrt(big) y = Sigmoid(r) }",
        k=np.full(8, 1e6, np.float32),
    )
    kept = ["Mul_1", "Sqrt_2"]
    made = _convert(model, {"x": normal(4, 8)}, tmp_path, kept)
    assert made.kinds("a", "big", "r") == [HALF, SINGLE, SINGLE]
    # In, out of `a`, into the last node, and out.
    assert made.casts == {HALF: 2, SINGLE: 2}
    assert made.sqnr_db() > FLOOR_DB


def test_one_cast_serves_all_readers_in_the_other_type(tmp_path: Path) -> None:
    model = prepared(
        "network (float[N,8] x) => (float[N,8] y) { a = Relu(x) b = Sqrt(a) c = Exp(a) d = Add(b, c) y = Add(d, a) }"
    )
    made = _convert(model, {"x": normal(4, 8)}, tmp_path, ["Sqrt_1", "Exp_2"])
    assert made.casts[SINGLE] == 1 + 1
    assert made.sqnr_db() > FLOOR_DB


def test_a_constant_read_in_both_types_is_stored_in_both(tmp_path: Path) -> None:
    model = prepared(
        "network (float[N,8] x) => (float[N,8] y) { a = Mul(x, k) y = Mul(a, k) }", k=np.full(8, 1 / 3, np.float32)
    )
    made = _convert(model, {"x": normal(4, 8)}, tmp_path, ["Mul_1"])
    stored = {tensor.data_type: onnx.numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer}
    assert stored.keys() == {HALF, SINGLE}
    np.testing.assert_array_equal(stored[SINGLE], np.float32(1 / 3))


def test_inputs_and_outputs_become_float16_under_their_names(tmp_path: Path) -> None:
    model = prepared(
        "network (float[N,8] x) => (float[N,8] x2, float[N,8] y) { x2 = Relu(x) y = CumSum(x, axis) }",
        axis=np.int64(1),
    )
    made = _convert(model, {"x": normal(4, 8)}, tmp_path, keep_io=False)
    graph = made.model.graph
    assert [value.name for value in [*graph.input, *graph.output]] == ["x", "x2", "y"]
    assert {value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]} == {HALF}
    assert made.sqnr_db() > FLOOR_DB


@dataclass(frozen=True)
class Case:
    """A model with `x` (2, 4), and how many of its nodes, those of subgraphs included, make float16."""

    text: str
    halves: int
    constants: dict[str, np.ndarray] = field(default_factory=dict)


HEAD = "network (float[2,4] x) => (float[2,4] y) "
CASES = {
    "scales-of-resize": Case(
        "network (float[2,4] x) => (float[1,1,4,8] y) "
        '{ i = Unsqueeze(x, axes) y = Resize<mode = "linear">(i, roi, scales) }',
        3,  # the Cast in front is one of them
        constants={
            "axes": np.array([0, 1]),
            "roi": np.zeros(0, np.float32),
            "scales": np.array([1, 1, 2, 2], np.float32),
        },
    ),
    "zeros-of-a-shape": Case(f"{HEAD} {{ s = Shape(x) z = ConstantOfShape(s) y = Add(x, z) }}", 3),
    "third-of-a-shape": Case(
        f"{HEAD} {{ s = Shape(x) z = ConstantOfShape<value = float[1] {{0.3333333}}>(s) y = Add(x, z) }}", 3
    ),
    "integers-cast": Case(f"{HEAD} {{ i = Cast<to = 7>(x) f = Cast<to = 1>(i) y = Add(x, f) }}", 3),
    "integers-cast-for-float32": Case(
        f"{HEAD} {{ i = Cast<to = 7>(x) f = Cast<to = 1>(i) y = CumSum(f, k) }}", 0, constants={"k": np.int64(1)}
    ),
    "random-numbers": Case(
        f"{HEAD} {{ n = RandomNormalLike<seed = 1.0>(x) d = Sub(n, n) y = Add(x, d) }}",
        4,
    ),
    "identity-of-a-shape": Case(f"{HEAD} {{ e = EyeLike(x) y = Add(x, e) }}", 3),
    "branches": Case(
        f"{HEAD} {{ a = Relu(x) s = ReduceSum<keepdims = 0>(a) t = Greater(s, z) "
        "y = If(t) <then_branch = g () => (float[2,4] p) { p = Mul(a, k) },"
        " else_branch = h () => (float[2,4] q) { q = Neg(a) }> }",
        5,
        constants={"z": np.float32(0), "k": np.full(4, 0.5, np.float32)},
    ),
    "loop": Case(
        f"{HEAD} {{ a = Relu(x) y = Loop(n, on, a) "
        "<body = g (int64 i, bool before, float[2,4] s) => (bool after, float[2,4] t)"
        "{ after = Identity(before) k = Constant<value_floats = [2.0]>() t = Add(s, k) }> }",
        4,
        constants={"n": np.int64(2), "on": np.bool_(True)},
    ),
    "sequence": Case(
        f"{HEAD} {{ a = Relu(x) q = SequenceConstruct(a, x) y = ConcatFromSequence<axis=0>(q) }}".replace(
            "float[2,4] y", "float[4,4] y"
        ),
        2,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_form_answers_as_it_did(case: Case, tmp_path: Path) -> None:
    model = prepared(case.text, **case.constants)
    made = _convert(model, {"x": 3 * normal(2, 4)}, tmp_path)
    inferred = onnx.shape_inference.infer_shapes(made.model)
    parts = [inferred.graph, *(attribute.g for node in nodes_of(inferred.graph) for attribute in node.attribute)]
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for part in parts
        for value in [*part.value_info, *part.output, *part.input]
    }
    halves = [name for node in nodes_of(inferred.graph) for name in node.output if kinds.get(name) == HALF]
    assert len(halves) == case.halves
    assert made.sqnr_db() > FLOOR_DB


def test_operators_of_the_runtime_are_converted_by_their_schemas(tmp_path: Path) -> None:
    """FastGelu may compute in float16, CDist may not, and of an operator of the user's own nobody knows."""
    nodes = [
        helper.make_node("FastGelu", ["x"], ["g"], "gelu", domain="com.microsoft"),
        helper.make_node("CDist", ["g", "g"], ["y"], "distances", domain="com.microsoft", metric="euclidean"),
    ]
    floats: tuple[int, list[int | str | None]] = (SINGLE, [4, 4])
    model = networks.assemble(nodes, {"x": floats}, {"y": floats}, domains={"com.microsoft": 1})
    made = _convert(onnx.shape_inference.infer_shapes(model), {"x": normal(4, 4)}, tmp_path)
    assert made.casts == {HALF: 1, SINGLE: 1}
    assert made.sqnr_db() > FLOOR_DB


def test_an_operator_that_nobody_knows_stays_in_float32() -> None:
    node = ir.node("Relu", [ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))], domain="their.own")
    assert half_of(node, {"": 17, "their.own": 1}) == Half()


def test_what_a_loop_hands_over_is_not_taken_for_what_its_schema_calls_by_one_name() -> None:
    model = networks.holding(
        "network (float[2] x) => (float[2] y) { count, s = Loop(n, on, zero, x) "
        "<body = g (int64 i, bool before, int64 c, float[2] t) => (bool after, int64 d, float[2] u)"
        "{ after = Identity(before) d = Identity(i) u = Neg(t) }> r = Cast<to = 1>(count) y = Add(r, s) }",
        n=np.int64(2),
        on=np.bool_(True),
        zero=np.int64(0),
    )
    assert float_tensors(ir.from_proto(model)) == {"x": SINGLE, "y": SINGLE}
