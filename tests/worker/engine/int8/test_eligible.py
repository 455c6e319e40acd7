"""Why nodes with weights have no int8 form, node by node."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from tests.worker.networks import normal, parse, prepared
from worker.engine.int8.eligible import ATTENTION, PATCHES, eligible, reasons_in_words, with_those_without_form
from worker.engine.int8.units import units_of


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "{ d = Cast<to = 11>(x) p = MatMul(d, e) y = Cast<to = 1>(p) }",
            "MatMul (it computes in float64)",
            id="double",
        ),
        pytest.param("{ y = MatMul(x, v) }", "MatMul (its weight is a vector)", id="vector"),
        pytest.param("{ s = Sin(x) y = Gemm(w, s) }", "Gemm (its constant stands on the left)", id="left"),
        pytest.param("{ s = Sin(x) y = Gemm(x, s) }", "Gemm (its weight is computed, not a constant)", id="computed"),
        pytest.param(
            "{ a = MatMul(x, w) h = foreign.Own(a) y = MatMul(h, w) }",
            "MatMul (the type of what it reads or makes is not known)",
            id="unknown",
        ),
    ],
)
def test_the_reason_is_that_of_the_node(text: str, reason: str) -> None:
    model = parse(f"network (float[8,8] x) => (float[8,8] y) {text}")
    constants = {"w": normal(8, 8), "v": normal(8), "e": normal(8, 8).astype(np.float64)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    if "foreign" not in text:
        model = onnx.shape_inference.infer_shapes(model)
    graph = ir.from_proto(model)
    everything = with_those_without_form(eligible(units_of(graph), False, None, []), graph)
    assert reasons_in_words(everything) == [f"In float: 1 {reason}."]


@pytest.mark.parametrize(
    ("stem", "quantized"),
    [
        pytest.param("d = Conv(x, w)", {"MatMul"}, id="patches"),
        pytest.param("c = Conv(x, w) r = Relu(c) d = Conv(r, w)", {"Conv", "MatMul"}, id="stem"),
    ],
)
def test_in_a_transformer_what_has_weights_may_run_in_int8_but_not_its_patches(stem: str, quantized: set[str]) -> None:
    behind = "t = Transpose<perm = [0, 2, 1]>(d) p = MatMul(t, m) s = Softmax(p) y = Add(s, p)"
    text = f"network (float[N,8,20] x) => (float[N,h,8] y) {{ {stem} {behind} }}"
    model = prepared(text, w=normal(8, 8, 3), m=normal(8, 8))
    found = eligible(units_of(ir.from_proto(model)), True, None, [])
    assert {unit.node.op_type for unit in found.in_int8} == quantized
    reasons = {unit.node.op_type: found.reasons.get(unit.name) for unit in found.units}
    assert (reasons["Transpose"], reasons["Add"]) == (ATTENTION, ATTENTION)
    assert reasons["Conv"] == (None if "Conv" in quantized else PATCHES)
