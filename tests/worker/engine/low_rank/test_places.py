"""Which nodes may be factored, and the reason for each that may not."""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from tests.worker import networks
from tests.worker.networks import normal, prepared
from worker.engine import reasons
from worker.engine.low_rank import places
from worker.engine.low_rank.places import OPERATORS, find_places

ROWS, IMAGES = "float[5,8] x", "float[2,4,9,9] x"


@dataclass
class Case:
    id: str
    body: str
    weights: dict[str, np.ndarray]
    reasons: dict[str, str]
    source: str = ROWS
    exclude: list[str] = field(default_factory=list)
    operators: tuple[str, ...] = OPERATORS


MATRIX, FILTER = normal(8, 6), normal(6, 4, 3, 3)
CASES = [
    Case("matmul", "y = MatMul(x, w)", {"w": MATRIX}, {}),
    Case("gemm", "y = Gemm(x, w)", {"w": MATRIX}, {}),
    Case("conv", "y = Conv(x, w)", {"w": FILTER}, {}, IMAGES),
    Case("excluded", "y = MatMul(x, w)", {"w": MATRIX}, {"MatMul_0": reasons.EXCLUDED}, exclude=["MatMul_0"]),
    Case("not-asked", "y = MatMul(x, w)", {"w": MATRIX}, {"MatMul_0": reasons.NOT_ASKED}, operators=("Conv",)),
    Case(
        "shared",
        "a = MatMul(x, w) b = MatMul(x, w) y = Add(a, b)",
        {"w": MATRIX},
        {"MatMul_0": places.SHARED, "MatMul_1": places.SHARED},
    ),
    Case("moved", "t = Transpose(w) y = MatMul(x, t)", {"w": MATRIX.T.copy()}, {"MatMul_1": places.MOVED}),
    Case(
        "transposed-input", "t = Transpose(x) y = Gemm<transA = 1>(t, w)", {"w": MATRIX}, {"Gemm_1": places.TRANSPOSED}
    ),
    Case("grouped", "y = Conv<group = 2>(x, w)", {"w": normal(6, 2, 3, 3)}, {"Conv_0": places.GROUPED}, IMAGES),
    Case("stack", "y = MatMul(x, w)", {"w": normal(3, 8, 6)}, {"MatMul_0": places.STACKED}),
    Case("many-terms", "y = MatMul(x, w)", {"w": normal(8193, 2)}, {"MatMul_0": places.LARGE}, "float[5,8193] x"),
    Case("not-finite", "y = MatMul(x, w)", {"w": MATRIX * np.float32("nan")}, {"MatMul_0": places.NOT_FINITE}),
    Case("two-activations", "t = Transpose(x) y = MatMul(x, t)", {}, {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_node_is_a_place_or_has_a_reason(case: Case) -> None:
    model = prepared(f"network ({case.source}) => (float[a,b] y) {{ {case.body} }}", **case.weights)
    found = find_places(ir.from_proto(model), case.operators, case.exclude)
    assert found.reasons == case.reasons
    products = [node.name for node in model.graph.node if node.op_type in OPERATORS and "w" in node.input]
    assert [place.name for place in found.places] == [name for name in products if name not in case.reasons]


def test_a_constant_node_is_a_weight_as_well() -> None:
    weight = helper.make_node("Constant", [], ["w"], "c", value=numpy_helper.from_array(MATRIX, "w"))
    nodes = [weight, helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    shape: list[int | str | None] = ["N", 8]
    model = networks.assemble(nodes, {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, ["N", 6])})
    (place,) = find_places(ir.from_proto(model), OPERATORS, ()).places
    assert (place.name, place.shape) == ("product", (8, 6))
    np.testing.assert_array_equal(place.array(), MATRIX)


def test_what_is_inside_a_function_or_control_flow_is_named() -> None:
    found = find_places(ir.from_proto(networks.with_function()), OPERATORS, ())
    assert set(found.reasons.values()) == {reasons.INSIDE_FUNCTION}
    branch = parser.parse_graph("branch () => (float[N,6] r) { r = MatMul(x, w) }")
    branch.node[0].name = "inner"
    node = helper.make_node("If", ["flag"], ["y"], "choice", then_branch=branch, else_branch=branch)
    inputs: dict[str, tuple[int, list[int | str | None] | None]] = {
        "x": (TensorProto.FLOAT, ["N", 8]),
        "flag": (TensorProto.BOOL, []),
    }
    model = networks.assemble([node], inputs, {"y": (TensorProto.FLOAT, ["N", 6])}, {"w": MATRIX})
    found = find_places(ir.from_proto(model), OPERATORS, ())
    assert (found.places, found.reasons) == ([], {"inner": places.IN_CONTROL_FLOW})
