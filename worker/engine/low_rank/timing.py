"""Where factors are faster: kernels by the profiler, where they stand; the whole file by turns."""

from collections.abc import Mapping

import onnx_ir as ir

from worker.engine.graph_file import read_graph
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.places import Place
from worker.engine.low_rank.writing import factor_names
from worker.engine.model_file import ModelFile
from worker.engine.nodes import is_operator, only_reader
from worker.engine.profiling import NodeTime, origin_of
from worker.engine.timing import PROFILE_SECONDS

TURNS_SECONDS, ROUNDS = 8.0, 7
MEASURING_SECONDS = 2 * PROFILE_SECONDS + TURNS_SECONDS
# Kernels that multiply, and what the runtime fuses behind them: a convolution may bear the name of the last.
PRODUCTS = ("Conv", "Gemm", "MatMul")
FUSED = ("BatchNormalization", "Mul", "Add", "Sum", "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh")
MOST_FUSED = 5


def place_times(places: list[Place], times: list[NodeTime]) -> dict[str, float]:
    """Milliseconds of the kernel that stands for each node, by its name; none where the profile shows none."""
    found = {place.name: _time_of(place.product.node, times) for place in places}
    return {name: milliseconds for name, milliseconds in found.items() if milliseconds > 0}


def factor_times(factored: ModelFile, chosen: Mapping[str, Shape], times: list[NodeTime]) -> dict[str, float]:
    """Milliseconds of all factors of a node together, by the node that they stand for."""
    nodes = {node.name: node for node in read_graph(factored).graph}
    return {
        name: sum(_time_of(nodes[factor], times) for factor in factor_names(name, shape.form))
        for name, shape in chosen.items()
    }


def _time_of(node: ir.Node, times: list[NodeTime]) -> float:
    """Of the product that the node is, under its own name or, else, that of what the runtime fused with it."""
    products = [time for time in times if any(mark in time.operator for mark in PRODUCTS)]
    for _ in range(MOST_FUSED):
        names = {origin_of(one or "") for one in (node.name, node.outputs[0].name)}
        found = sum(time.milliseconds for time in products if time.origin in names)
        reader = only_reader(node.outputs[0])
        if found or reader is None or not is_operator(reader, *FUSED):
            return found
        node = reader
    return 0.0
