"""Places: the constants of a graph that are the weights of products, and the axis along which each is summed."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from worker.engine.graph import RUNTIME_DOMAIN, STANDARD_DOMAINS, constants_to_initializers, name_nodes
from worker.engine.graph_file import graph_of
from worker.engine.model_file import ModelFile
from worker.engine.nodes import MATRIX_RANK, constant_names, constant_tensor, integer, is_operator
from worker.engine.reasons import CONTROL_FLOW, EXCLUDED, INSIDE_FUNCTION, NOT_ASKED

READ_OTHERWISE = "read by other operators as well"

# By operator and input: the axis that is summed.
INPUT_AXES = {("Conv", 1): 1, ("ConvTranspose", 1): 0, ("MatMul", 0): -1, ("MatMul", 1): -2}
INPUT_AXES |= {(operator, index): 2 for operator in ("LSTM", "GRU", "RNN") for index in (1, 2)}
# Of Gemm by input: the attribute that transposes it, and the axis that is summed where it does not.
TRANSPOSED = {0: ("transA", 1), 1: ("transB", 0)}


@dataclass(frozen=True, eq=False)
class Place:
    """One weight. `values` is float32 with two axes or more that are longer than 1."""

    name: str
    node: str
    operator: str
    values: np.ndarray
    axis: int
    """The input axis: products are summed along it."""
    groups: int = 1
    """Equal parts of that axis that belong to sums of their own."""


@dataclass(frozen=True)
class Found:
    """`reasons` says by name why a weight stays as it is; `nodes` names every node of the graph."""

    places: list[Place]
    reasons: dict[str, str]
    nodes: frozenset[str]


@dataclass(frozen=True)
class Reading:
    """A node that reads a constant, and the axis of the constant that it sums along; None: it is no product."""

    node: ir.Node
    axis: int | None
    groups: int = 1


def open_graph(model: ModelFile) -> ir.Model:
    """The whole graph with every node named and functions inlined: to be read, its constants named as in the file."""
    loaded = model.load()
    constants_to_initializers(loaded)
    name_nodes(loaded)
    graph = graph_of(loaded)
    return InlinePass()(graph).model if graph.functions else graph


def find_places(
    model: ir.Model, in_file: Collection[str], operators: Collection[str], exclude: Collection[str]
) -> Found:
    """The weights in the order of the graph's constants. `in_file` names the constants that the file itself holds.

    Vectors are biases, scales and norms: they stay, and so does a constant that is a result of the model.
    """
    found = Found([], {}, frozenset(node.name or "" for node in model.graph.all_nodes()))
    values = {value.name: value for node in model.graph for value in node.outputs} | dict(model.graph.initializers)
    for name in constant_names(model.graph):
        tensor = constant_tensor(values[name])
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or values[name].is_graph_output():
            continue
        shape = tuple(tensor.shape.numpy())
        if 0 in shape or sum(size > 1 for size in shape) < MATRIX_RANK:
            continue
        readings = sorted(_readings(values[name], tuple(range(len(shape)))), key=lambda one: one.node.name or "")
        products = [one for one in readings if one.axis is not None]
        if not products:
            continue
        reason = INSIDE_FUNCTION if name not in in_file else _against(model.graph, readings, operators, exclude)
        if reason is not None:
            found.reasons[name] = reason
            continue
        first = products[0]
        place = Place(name, first.node.name or "", first.node.op_type, tensor.numpy(), first.axis or 0, first.groups)
        found.places.append(place)
    return found


def _against(
    graph: ir.Graph, readings: list[Reading], operators: Collection[str], exclude: Collection[str]
) -> str | None:
    """Why a weight stays, where it does."""
    if any(one.node.name in exclude for one in readings):
        return EXCLUDED
    if any(one.node.graph is not graph for one in readings):
        return CONTROL_FLOW
    if any(one.axis is None for one in readings):
        return READ_OTHERWISE
    if any(one.node.op_type not in operators for one in readings):
        return NOT_ASKED
    return None


def _readings(value: ir.Value, axes: tuple[int, ...]) -> Iterator[Reading]:
    """Who reads a constant, through transpositions too. `axes`: for each axis of `value`, that of the constant."""
    for use in value.uses():
        node = use.node
        if not is_operator(node, "Identity", "Transpose") or node.outputs[0].is_graph_output():
            axis = _input_axis(node, use.idx, len(axes))
            groups = integer(node, "group", 1) if is_operator(node, "ConvTranspose") else 1
            yield Reading(node, None if axis is None else axes[axis], groups)
        elif node.op_type == "Identity":
            yield from _readings(node.outputs[0], axes)
        else:
            order = node.attributes.get("perm")
            moved = list(order.as_ints()) if order is not None else list(reversed(range(len(axes))))
            yield from _readings(node.outputs[0], tuple(axes[source] for source in moved))


def _input_axis(node: ir.Node, index: int, rank: int) -> int | None:
    """The axis along which `node` sums products with its input `index`, of `rank` axes; None: that is no weight of it.

    Of convolutions, whose sums run over the window as well: the channels.
    """
    if node.domain == RUNTIME_DOMAIN:
        return 0 if (node.op_type, index) == ("Attention", 1) else None
    if is_operator(node, "Gemm") and index in TRANSPOSED:
        name, plain = TRANSPOSED[index]
        return 1 - plain if integer(node, name, 0) else plain
    axis = INPUT_AXES.get((node.op_type, index)) if node.domain in STANDARD_DOMAINS else None
    return None if axis is None else axis % rank
