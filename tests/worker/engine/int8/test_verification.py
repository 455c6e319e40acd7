"""A unit that was planned in int8 and shows up in float is found, by whatever name the runtime calls its kernel."""

import pytest

from tests.worker.engine.int8.quantizing import placed
from tests.worker.networks import normal, prepared
from worker.engine.int8.placement import Placement
from worker.engine.int8.verification import Executed, fused_unasked, not_fused
from worker.engine.profiling import Kind, NodeTime


@pytest.fixture
def placement() -> Placement:
    text = (
        "network (float[2,3,8,8] x) => (float[2,3,4,4] y) "
        "{ c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) "
        "y = Sigmoid(p) }"
    )
    model = prepared(text, w=normal(3, 3, 3, 3))
    model.graph.node[0].name = "conv_token_7"
    return placed(model)


def _time(name: str, operator: str, kind: Kind) -> NodeTime:
    return NodeTime(name, operator, kind, 1.0, 1)


def test_kernels_in_int8_are_as_planned(placement: Placement) -> None:
    times = [
        _time("conv_token_7_token_1", "QLinearConv", "int8"),
        _time("x_quantized_QuantizeLinear", "QuantizeLinear", "conversion"),
        _time("MaxPool_2", "MaxPool", "float"),
        _time("Sigmoid_3", "QLinearSigmoid", "int8"),
    ]
    assert not_fused(placement, times) == []


@pytest.mark.parametrize(
    ("kernel", "operator", "unit"),
    [
        ("conv_token_7", "FusedConv", "conv_token_7"),
        ("r_nchwc", "Conv", "conv_token_7"),
        ("conv_token_7_token_1", "Conv", "conv_token_7"),
        ("Sigmoid_3", "Sigmoid", "Sigmoid_3"),
    ],
)
def test_kernels_in_float_are_found(kernel: str, operator: str, unit: str, placement: Placement) -> None:
    assert not_fused(placement, [_time(kernel, operator, "float")]) == [Executed(unit, operator)]


def test_a_relu_behind_a_product_that_hands_out_float_is_as_planned(placement: Placement) -> None:
    assert not_fused(placement, [_time("Relu_1", "Relu", "float")]) == []


def test_what_runs_in_int8_unasked_is_found(placement: Placement) -> None:
    in_float = placement.without(["Sigmoid_3"], "slower here")
    times = [_time("Sigmoid_3", "QLinearSigmoid", "int8"), _time("conv_token_7", "QLinearConv", "int8")]
    assert fused_unasked(placement, times) == []
    assert fused_unasked(in_float, times) == [Executed("Sigmoid_3", "QLinearSigmoid")]
