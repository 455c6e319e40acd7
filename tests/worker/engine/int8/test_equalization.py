"""Cross-layer equalization: the same function, from weights that spread alike."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.equalization import equalize
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session

CHANNELS = 8


def _pair(activation: str, axes: int = 2) -> onnx.ModelProto:
    """`x` (1, 3, 8, 8), over two axes, through a Conv of very unequal channels, an activation, a depthwise Conv and a
    1 x 1 Conv.
    """
    generator = np.random.default_rng(0)
    spread = np.logspace(-1, 1, CHANNELS).astype(np.float32).reshape(CHANNELS, 1, *[1] * axes)
    kernel, pads, space = [3] * axes, [1] * (2 * axes), [8] * axes
    weights = {
        "first": generator.standard_normal((CHANNELS, 3, *kernel)).astype(np.float32) * spread,
        "bias": generator.standard_normal(CHANNELS).astype(np.float32),
        "deep": generator.standard_normal((CHANNELS, 1, *kernel)).astype(np.float32),
        "last": generator.standard_normal((4, CHANNELS, *[1] * axes)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias"], ["a"], "first_conv", pads=pads),
        helper.make_node(activation, ["a"], ["b"], "activation"),
        helper.make_node("Conv", ["b", "deep"], ["c"], "deep_conv", group=CHANNELS, pads=pads),
        helper.make_node("Conv", ["c", "last"], ["y"], "last_conv"),
    ]
    floats = TensorProto.FLOAT
    return networks.assemble(nodes, {"x": (floats, [1, 3, *space])}, {"y": (floats, [1, 4, *space])}, weights)


def _ranges(model: ModelFile) -> np.ndarray:
    """Largest weight of each output channel of the first convolution."""
    graph = read_graph(model).graph
    weight = next(node for node in graph if node.name == "first_conv").inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return np.abs(weight.const_value.numpy()).reshape(CHANNELS, -1).max(axis=1)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_channels_spread_alike_and_the_answer_stays(axes: int, saved: Callable[..., ModelFile]) -> None:
    file = saved(_pair("Relu", axes))
    graph = read_graph(file)
    assert equalize(graph) == 2
    made = save_graph(graph, file.path.parent.parent / "equalized")
    x = {"x": np.random.default_rng(1).standard_normal((1, 3, *[8] * axes)).astype(np.float32)}
    before, after = (run_session(open_session(one.path, 1), x)[0] for one in (file, made))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    # The largest channel was a hundred times the smallest.
    assert _ranges(made).max() / _ranges(made).min() < _ranges(file).max() / _ranges(file).min() / 3


def test_only_relu_lets_a_factor_through(saved: Callable[..., ModelFile]) -> None:
    assert equalize(read_graph(saved(_pair("Sigmoid")))) == 1
