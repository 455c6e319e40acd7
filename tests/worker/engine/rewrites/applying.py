"""A rewrite on a small graph: how often it applied, what is left, and that the answer stays the same."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from tests.worker.networks import normal


@dataclass(frozen=True)
class Applied:
    """`count` is the rewrite's own; `operators` are those of the graph that it left."""

    count: int
    operators: dict[str, int]
    model: onnx.ModelProto


def statistics(channels: int) -> dict[str, np.ndarray]:
    """Of a BatchNormalization: `s`, `o`, `m`, `v`, no channel like another."""
    return {
        "s": normal(channels, seed=1) + 2,
        "o": normal(channels, seed=2),
        "m": normal(channels, seed=3),
        "v": np.abs(normal(channels, seed=4)) + 0.5,
    }


def apply(rewrite: Callable[[ir.Model], int], model: onnx.ModelProto) -> Applied:
    """The rewritten model; it must be valid, keep the names of its outputs, and answer random input as before."""
    graph = ir.from_proto(model)
    count = rewrite(graph)
    made = ir.to_proto(graph)
    onnx.checker.check_model(made, full_check=True)
    assert [value.name for value in made.graph.output] == [value.name for value in model.graph.output]
    feed = {
        value.name: normal(*(axis.dim_value for axis in value.type.tensor_type.shape.dim), seed=5)
        for value in model.graph.input
    }
    for before, after in zip(_run(model, feed), _run(made, feed), strict=True):
        # Sums of some hundred float32 terms in another order.
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    return Applied(count, Counter(node.op_type for node in made.graph.node), made)


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    outputs: list[np.ndarray] = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run(None, feed)
    return outputs
