"""Rows that a mask hides whole are told from the mask, in attention as PyTorch's exporters write it."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import prepared
from worker.engine.float16.signatures import half_of
from worker.engine.rewrites.masked_softmax import guard_by_mask

INPUTS = "float[2,2,4,8] q, float[2,2,8,3] k, float[2,2,3,8] v"
# Of three keys a row sees none by a chance of one half.
SEEN = "mask = Greater(m, high)"
BIAS = "bias = Where(mask, zero, hidden)"
SCORES = "scores = MatMul(q, k)"
SHARES = "sum = Add(scores, bias) p = Softmax <axis = -1> (sum)"
GUARD = "nan = IsNaN(p) seen = Where(nan, zero, p)"
PRODUCT = "y = MatMul(seen, v)"
WHOLE = (SEEN, BIAS, SCORES, SHARES, GUARD, PRODUCT)
NUMBERS = {
    "zero": np.float32(0),
    "hidden": np.float32(-np.inf),
    "high": np.float32(0.8),
    "two": np.float32(2),
    "lowest": np.finfo(np.float32).min,
}
LEFT = {"Greater": 1, "Cast": 2, "ReduceMax": 1, "Where": 2, "MatMul": 2, "Add": 1, "Softmax": 1, "Mul": 1}


def _model(
    parts: Sequence[str], mask: str = "2,1,4,3", outputs: str = "float[2,2,4,8] y", opset: int = 18
) -> onnx.ModelProto:
    text = f"network ({INPUTS}, float[{mask}] m) => ({outputs}) {{ {' '.join(parts)} }}"
    return prepared(text, opset=opset, **{name: np.asarray(number) for name, number in NUMBERS.items()})


@pytest.mark.parametrize("mask", ["2,1,4,3", "2,1,1,3", "4,3", "3", "2,1,4,1"])
def test_what_sees_nothing_is_zero_without_a_look_at_the_shares(mask: str) -> None:
    found = apply(guard_by_mask, _model(WHOLE, mask))
    assert (found.count, found.operators) == (1, LEFT)


@pytest.mark.parametrize(
    "parts",
    [
        (SEEN, BIAS, "whole = MatMul(q, k) scores = Div(whole, two)", SHARES, GUARD, PRODUCT),
        (SEEN, BIAS, SCORES, SHARES.replace("scores, bias", "bias, scores"), GUARD, PRODUCT),
        (SEEN, BIAS, SCORES, SHARES.replace("-1", "3"), GUARD, PRODUCT),
    ],
    ids=["scaled", "mask-first", "axis-counted-from-the-front"],
)
def test_forms_that_exporters_write(parts: Sequence[str]) -> None:
    assert apply(guard_by_mask, _model(parts)).count == 1


def test_what_hides_by_the_lowest_number_makes_no_nan() -> None:
    found = apply(guard_by_mask, _model([part.replace("hidden", "lowest") for part in WHOLE]))
    assert (found.count, found.operators) == (1, {"Greater": 1, "Where": 1, "MatMul": 2, "Add": 1, "Softmax": 1})


def test_what_is_made_can_be_computed_in_float16() -> None:
    graph = ir.from_proto(_model(WHOLE))
    assert guard_by_mask(graph) == 1
    halves = {node.op_type for node in graph.graph if half_of(node, graph.opset_imports).outputs}
    assert {"ReduceMax", "Where", "Add", "Softmax", "MatMul", "Mul"} <= halves


def test_before_opset_18_axes_are_attributes() -> None:
    assert apply(guard_by_mask, _model(WHOLE, opset=17)).operators == LEFT


def test_layers_of_one_mask_share_what_is_made_of_it() -> None:
    second = (
        "t = MatMul(q, k) a = Add(t, bias) r = Softmax <axis = -1> (a) "
        "none = IsNaN(r) some = Where(none, zero, r) z = MatMul(some, v)"
    )
    found = apply(guard_by_mask, _model([*WHOLE, second], outputs="float[2,2,4,8] y, float[2,2,4,8] z"))
    assert found.count == 2
    assert found.operators["ReduceMax"] == 1


@pytest.mark.parametrize(
    ("parts", "outputs"),
    [
        ((SEEN, BIAS, SCORES, SHARES, GUARD.replace("(nan, zero", "(nan, two"), PRODUCT), "y"),
        ((SEEN, "bias = Where(mask, zero, two)", SCORES, SHARES, GUARD, PRODUCT), "y"),
        ((SEEN, BIAS, "whole = MatMul(q, k) scores = Log(whole)", SHARES, GUARD, PRODUCT), "y"),
        ((SEEN, BIAS, SCORES, SHARES.replace("-1", "-2"), GUARD, PRODUCT), "y"),
        ((SEEN, BIAS, SCORES, SHARES, GUARD, "w = MatMul(seen, v) y = Add(w, w) z = Exp(seen)"), "yz"),
        (WHOLE, "yp"),
    ],
    ids=[
        "other-than-zero",
        "hides-nothing",
        "scores-of-their-own-kind",
        "other-axis",
        "shares-read-twice",
        "shares-delivered",
    ],
)
def test_anything_else_is_left_alone(parts: Sequence[str], outputs: str) -> None:
    shapes = {"y": "float[2,2,4,8] y", "z": "float[2,2,4,3] z", "p": "float[2,2,4,3] p"}
    assert apply(guard_by_mask, _model(parts, outputs=", ".join(shapes[name] for name in outputs))).count == 0
