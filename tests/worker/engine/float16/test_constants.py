"""What becomes of numbers that float16 has not: none turns into 0, and none into infinity unseen."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.worker.networks import parse, prepared
from worker.engine.float16.constants import narrow, nodes_beyond

TINY = 5.96e-8  # the smallest float16 above 0


@pytest.mark.parametrize(
    ("given", "expected", "raised"),
    [
        (1 / 3, 0.33325, 0),
        (1e-12, TINY, 1),
        (-1e-30, -TINY, 1),
        (0.0, 0.0, 0),
        (65504.0, 65504.0, 0),
        (np.inf, np.inf, 0),
        (-np.inf, -np.inf, 0),
        (np.nan, np.nan, 0),
    ],
)
def test_a_value_keeps_its_sign_and_does_not_vanish(given: float, expected: float, raised: int) -> None:
    for values in (np.array(given, np.float32), np.array([given, 1.0], np.float32)):
        narrowed = narrow(values)
        assert (narrowed.values.dtype, narrowed.values.shape) == (np.float16, values.shape)
        assert narrowed.raised == raised
        np.testing.assert_allclose(narrowed.values.reshape(-1)[0], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("constant", "beyond"),
    [(7e4, ["Pow_0"]), (-1e9, ["Pow_0"]), (6e4, []), (np.inf, []), (np.nan, [])],
    ids=["beyond", "mask", "within", "infinity", "nan"],
)
def test_nodes_that_read_a_finite_constant_beyond_it_are_found(constant: float, beyond: list[str]) -> None:
    model = prepared("network (float[N,2] x) => (float[N,2] y) { a = Pow(x, k) y = Neg(a) }", k=np.float32(constant))
    assert nodes_beyond(ir.from_proto(model), ()) == beyond
    assert nodes_beyond(ir.from_proto(model), ["a"]) == ["Pow_0", "Neg_1"]


@pytest.mark.parametrize(
    ("masking", "beyond"),
    [
        ("bias = Where(m, zero, lowest) sum = Add(x, bias)", ["Where_0", "Add_1", "Softmax_2"]),
        ("h = Sub(one, f) bias = Mul(h, lowest) sum = Add(bias, x)", ["Mul_1", "Add_2", "Softmax_3"]),
        ("h = Sub(one, f) far = Mul(h, lowest) n = Neg(far) sum = Sub(x, n)", ["Mul_1", "Neg_2", "Sub_3", "Softmax_4"]),
        ("bias = Div(lowest, one) s = Add(x, bias) sum = Max(s, lowest)", ["Div_0", "Add_1", "Max_2", "Softmax_3"]),
        ("near = Div(x, lowest) sum = Add(near, f)", ["Div_0"]),
    ],
    ids=["where", "product", "difference", "maximum", "divisor"],
)
def test_what_may_hold_such_a_constant_is_found_whatever_samples_showed(masking: str, beyond: list[str]) -> None:
    """A row that is masked whole and is minus infinity all along has shares of NaN."""
    model = prepared(
        "network (float[N,2] x, bool[N,2] m, float[N,2] f, float[2,2] v) => (float[N,2] y) "
        f"{{ {masking} p = Softmax(sum) y = MatMul(p, v) }}",
        zero=np.array(0, np.float32),
        one=np.array(1, np.float32),
        lowest=np.array(np.finfo(np.float32).min),
    )
    assert nodes_beyond(ir.from_proto(model), ()) == beyond


def test_constants_of_subgraphs_are_looked_at_as_well() -> None:
    model = parse(
        "network (float[2] x, bool t) => (float[2] y) { y = If(t) "
        "<then_branch = g () => (float[2] p) { k = Constant<value_float = 1e9>() [wide] p = Mul(x, k) },"
        " else_branch = h () => (float[2] q) { [narrow] q = Neg(x) }> }"
    )
    assert nodes_beyond(ir.from_proto(model), ()) == ["wide"]
