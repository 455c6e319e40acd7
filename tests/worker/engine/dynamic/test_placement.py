"""What is proposed after measuring: all but the units that are clearly slower, conversions included."""

import onnx_ir as ir

from tests.worker.networks import normal, prepared
from worker.engine.dynamic.placement import CONVERSION, everything_dynamic, faster_dynamic
from worker.engine.int8.costs import Costs, Profiles
from worker.engine.profiling import NodeTime

MODEL = prepared(
    "network (float[N,8] x) => (float[N,8] a, float[N,8] b, float[N,8] c) "
    "{ a = MatMul(x, u) b = MatMul(x, v) c = MatMul(a, w) }",
    u=normal(8, 8),
    v=normal(8, 8),
    w=normal(8, 8),
)
FIRST, SECOND, ALONE = "MatMul_0", "MatMul_1", "MatMul_2"


def _proposed(times: dict[str, tuple[float, float]], conversion_ms: float) -> frozenset[str]:
    everything = everything_dynamic(ir.from_proto(MODEL), ["MatMul"], [])
    profile = [NodeTime(CONVERSION.format("x"), "DynamicQuantizeLinear", "conversion", conversion_ms, 8)]
    return faster_dynamic(everything, Costs(times), Profiles([], profile)).quantized


def test_slow_products_are_left_out_each_by_itself() -> None:
    times = {FIRST: (5.0, 2.0), SECOND: (1.0, 2.0), ALONE: (1.0, 1.5)}
    assert _proposed(times, conversion_ms=0.5) == {FIRST}


def test_what_may_be_noise_leaves_nothing_out() -> None:
    times = {FIRST: (5.0, 2.0), SECOND: (1.0, 1.05), ALONE: (1.0, 1.05)}
    assert _proposed(times, conversion_ms=0.1) == {FIRST, SECOND, ALONE}


def test_those_who_share_a_conversion_must_pay_for_it_together() -> None:
    times = {FIRST: (5.0, 4.0), SECOND: (5.0, 4.0), ALONE: (2.0, 1.0)}
    assert _proposed(times, conversion_ms=1.5) == {FIRST, SECOND, ALONE}
    assert _proposed(times, conversion_ms=4.0) == {ALONE}


def test_a_bias_that_float_adds_by_itself_counts_as_saved() -> None:
    model = prepared(
        "network (float[N,8] x) => (float[N,8] y) { p = MatMul(x, w) y = Add(p, b) }", w=normal(8, 8), b=normal(8)
    )
    everything = everything_dynamic(ir.from_proto(model), ["MatMul"], [])
    add = NodeTime("Add_1", "Add", "float", 0.5, 8)
    times = {FIRST: (1.0, 1.2)}
    assert faster_dynamic(everything, Costs(times), Profiles([add], [])).quantized == {FIRST}
    assert not faster_dynamic(everything, Costs(times), Profiles([], [])).quantized


def test_a_recipe_leaves_out_operators_and_nodes() -> None:
    model = ir.from_proto(MODEL)
    assert not everything_dynamic(model, ["LSTM"], []).quantized
    assert everything_dynamic(model, ["MatMul"], [ALONE]).quantized == {FIRST, SECOND}
