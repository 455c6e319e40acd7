"""8-bit weights under which no kernel saturates, on a processor that adds products in 16 bits too."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.worker.networks import normal
from worker.engine.int8.rounding import Rounding, codes_of
from worker.engine.int8.saturation import LARGEST_SUM, Pairs
from worker.engine.int8.weights import Codes
from worker.engine.moments.products import as_rows

NOTHING_LEAST = np.zeros((), np.float32)
WEIGHTS = {
    "filter": ((8, 6, 3, 3), 0),
    "odd-filter": ((8, 3, 3, 3), 0),
    "one-channel": ((8, 1, 5, 5), 0),
    "line": ((8, 6, 5), 0),
    "volume": ((8, 6, 3, 3, 3), 0),
    "pointwise": ((8, 64, 1, 1), 0),
    "matrix": ((65, 16), 1),
    "transposed-matrix": ((16, 64), 0),
}
KERNELS = [(9,), (3, 3), (3, 2, 3)]


def _codes(shape: tuple[int, ...], axis: int, unsaturated: bool, seed: int = 0) -> Codes:
    weight = normal(*shape, seed=seed)
    return codes_of(weight, axis, Rounding(unsaturated=unsaturated), None, NOTHING_LEAST)


@pytest.mark.parametrize(("shape", "axis"), WEIGHTS.values(), ids=WEIGHTS)
def test_no_two_neighbours_exceed_what_16_bits_hold(shape: tuple[int, ...], axis: int) -> None:
    pairs = Pairs.of(shape, axis)
    plain, limited = (as_rows(_codes(shape, axis, on).codes, axis).astype(int) for on in (False, True))
    sums = [np.abs(rows[:, pairs.first] + rows[:, pairs.second]).max() for rows in (plain, limited)]
    assert sums[0] > LARGEST_SUM
    assert sums[1] <= LARGEST_SUM


def test_less_is_lost_than_by_seven_bits() -> None:
    """Which lose 6 dB; some 300 pairs of normally distributed weights lose 2."""
    weight = normal(64, 64, 3, 3)
    noise = []
    for unsaturated in (False, True):
        codes = codes_of(weight, 0, Rounding(unsaturated=unsaturated), None, NOTHING_LEAST)
        noise.append(float(np.square(codes.dequantize() - weight).sum()))
    assert 10 * np.log10(noise[1] / noise[0]) < 3


def test_what_is_clipped_stays_within_the_limit() -> None:
    """A scale smaller than the pairs need leaves codes to be moved, each pair by what is too much."""
    pairs = Pairs(np.array([0, 2, 4]), np.array([1, 3, 5]))
    codes = np.array([[127, 127, -127, -2, 127, -127]])
    assert pairs.limited(codes).tolist() == [[64, 64, -126, -2, 127, -127]]


def _convolved(codes: np.ndarray, groups: int = 1) -> np.ndarray:
    """What QLinearConv makes of an image of 255 under each filter, with a bias by which 128 is right."""
    image = np.full((1, codes.shape[1] * groups, *codes.shape[2:]), 255, np.uint8)
    one, zero, ones = np.float32(1), np.uint8(0), np.ones(len(codes), np.float32)
    bias = 128 - 255 * codes.reshape(len(codes), -1).sum(axis=1, dtype=np.int32)
    constants = {"xs": one, "xz": zero, "w": codes, "ws": ones, "wz": np.zeros(len(codes), np.int8)}
    constants |= {"ys": one, "yz": zero, "b": bias}
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"], group=groups)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, image.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    made: np.ndarray = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": image}
    )[0]
    return made


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_the_runtime_computes_exactly_on_the_largest_input(channels: int, kernel: tuple[int, ...]) -> None:
    """On a processor without VNNI this fails by the plain codes, where the two that neighbour both are large."""
    weight = np.abs(normal(16, channels, *kernel)) + 1
    codes = codes_of(weight, 0, Rounding(unsaturated=True), None, NOTHING_LEAST).codes
    assert (_convolved(codes) == 128).all()


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_depthwise_filters_are_exact_without_a_limit(kernel: tuple[int, ...]) -> None:
    weight = np.abs(normal(16, 1, *kernel)) + 1
    codes = codes_of(weight, 0, Rounding(unsaturated=True), None, NOTHING_LEAST, depthwise=True).codes
    assert (_convolved(codes, groups=16) == 128).all()
