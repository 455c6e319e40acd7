"""Places: the constants of a graph that are worth keeping in few bits, and how each is read.

What is read inside control flow stays as it is, and so do scales of what is in few bits already.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import onnx_ir as ir

from worker.engine.graph import RUNTIME_DOMAIN, STANDARD_DOMAINS
from worker.engine.nodes import (
    MATRIX_RANK,
    constant,
    integer,
    is_float32,
    is_operator,
    number,
    only_reader,
    rank,
)
from worker.engine.reasons import CONTROL_FLOW, EXCLUDED

# A row of a table needs a scale of 4 bytes: below this it takes a quarter of the row and more.
LEAST_ROW = 16
OUTPUT = "an output of the model"
BEYOND = "values beyond what a code can stand for"
COARSE = "spread too wide for 16 bits"
# Half a step of 16 bits, as a share of what is a usual value: a weight of 8 bits loses as much.
LARGEST_ERROR = 2.0**-8
LARGEST_VALUE = 1e38
LARGEST_CODE = 2**15 - 1
# By operator and input: the axes that count output channels.
LAYERS: dict[tuple[str, int], tuple[int, ...]] = {
    ("Conv", 1): (0,),
    ("DeformConv", 1): (0,),
    ("ConvTranspose", 1): (1,),
    ("Attention", 1): (1,),
}
LAYERS |= {(operator, index): (0, 1) for operator in ("LSTM", "GRU", "RNN") for index in (1, 2)}
ABSORBED = ("Relu", "LeakyRelu", "Sigmoid", "Tanh")
EIGHT_BITS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4})


class Use(IntEnum):
    """How a constant is read; where several nodes read it in different ways, the first of these decides."""

    TABLE = 1
    """Gather picks rows by number: an embedding."""
    PRODUCT = 2
    """The matrix of a MatMul or Gemm."""
    LAYER = 3
    """The weight of another node that has output channels: Conv, LSTM."""
    CONSTANT = 4
    """Read by any other operator: what its numbers mean is not known."""


@dataclass(frozen=True)
class Place:
    """One constant, float32 of rank 2 or more. `kept` are the axes along which each index has a scale of its own."""

    name: str
    node: str
    """Name of the node that decides how it is read, and its operator."""
    operator: str
    use: Use
    kept: tuple[int, ...]
    kernel: frozenset[str]
    """Names that a kernel of that node may bear: the node's, those of what it returns, and of an activation behind it
    that float kernels take in."""
    packable: bool
    """Whether the one node that reads it could be a MatMulNBits."""


@dataclass(frozen=True)
class Found:
    """`reasons` says by name why a constant that is large enough stays as it is."""

    places: list[Place]
    reasons: dict[str, str]


def find_places(model: ir.Model, minimum_elements: int, exclude: Collection[str]) -> Found:
    """In the order of the graph's constants. `exclude` names nodes whose weights stay in float32."""
    found = Found([], {})
    computed = _constant_values(model.graph)
    for name, value in model.graph.initializers.items():
        values = constant(value)
        if not is_float32(value) or values is None or not value.uses():
            continue
        # A vector is a bias, a scale or a norm's weight: small, and much depends on it.
        if values.size < minimum_elements or sum(size > 1 for size in values.shape) < MATRIX_RANK:
            continue
        readers = sorted(((use.node, use.idx) for use in value.uses()), key=lambda use: (use[0].name or "", use[1]))
        if any(_unpacks(node, value, computed) for node, _ in readers):
            continue
        if value.is_graph_output():
            found.reasons[name] = OUTPUT
        elif any(node.graph is not model.graph for node, _ in readers):
            found.reasons[name] = CONTROL_FLOW
        elif any(node.name in exclude for node, _ in readers):
            found.reasons[name] = EXCLUDED
        else:
            place = _place(name, readers, values.shape)
            reason = _against(place, values)
            if reason is None:
                found.places.append(place)
            else:
                found.reasons[name] = reason
    return found


def _against(place: Place, values: np.ndarray) -> str | None:
    largest = max(float(values.max()), -float(values.min()))
    if not largest <= LARGEST_VALUE:
        return BEYOND
    usual = np.abs(values[values != 0]) if place.use is Use.CONSTANT else None
    if usual is not None and usual.size and largest / (2 * LARGEST_CODE) > LARGEST_ERROR * float(np.median(usual)):
        return COARSE
    return None


def _place(name: str, readers: list[tuple[ir.Node, int]], shape: tuple[int, ...]) -> Place:
    uses = [(*_use(node, index, shape), node) for node, index in readers]
    use, kept, node = min(uses, key=lambda one: one[0])
    after = only_reader(node.outputs[0])
    nodes = [node, after] if after is not None and is_operator(after, *ABSORBED) else [node]
    names = [found for one in nodes for found in (one.name, *(output.name for output in one.outputs)) if found]
    packable = len(readers) == 1 and use is Use.PRODUCT and _could_be_packed(node)
    return Place(name, node.name or "", node.op_type, use, kept, frozenset(names), packable)


def _constant_values(graph: ir.Graph) -> set[ir.Value]:
    """What nodes compute from constants alone: in a prepared graph, weights that are unpacked when it is loaded."""
    known: set[ir.Value] = set()
    for node in graph:
        if node.inputs and all(
            value is None or value in known or value.const_value is not None for value in node.inputs
        ):
            known.update(node.outputs)
    return known


def _unpacks(node: ir.Node, value: ir.Value, computed: set[ir.Value]) -> bool:
    """Whether a node that reads `value` unpacks with it what is in few bits already."""
    beside = [other for other in node.inputs if other is not None and other is not value]
    in_bits = any(other.const_value is not None and other.dtype in EIGHT_BITS for other in beside)
    return in_bits or any(output in computed for output in node.outputs)


def _use(node: ir.Node, index: int, shape: tuple[int, ...]) -> tuple[Use, tuple[int, ...]]:
    """How `node` reads a constant of `shape` as its input `index`, and the axes along which scales may differ."""
    if node.domain not in (*STANDARD_DOMAINS, RUNTIME_DOMAIN):
        return Use.CONSTANT, ()
    if node.op_type == "Gather" and index == 0:
        axis = integer(node, "axis", 0) % len(shape)
        is_table = int(np.prod(shape)) // shape[axis] >= LEAST_ROW
        return (Use.TABLE, (axis,)) if is_table else (Use.CONSTANT, ())
    if node.op_type == "MatMul":
        summed = len(shape) - (2 if index else 1)
        is_matrix = index == 1 and len(shape) == MATRIX_RANK
        return Use.PRODUCT if is_matrix else Use.LAYER, tuple(axis for axis in range(len(shape)) if axis != summed)
    if node.op_type == "Gemm" and index == 1:
        return Use.PRODUCT, (0,) if integer(node, "transB", 0) else (1,)
    kept = LAYERS.get((node.op_type, index))
    return (Use.CONSTANT, ()) if kept is None else (Use.LAYER, kept)


def _could_be_packed(node: ir.Node) -> bool:
    """MatMulNBits multiplies activations of rank 2 and more by a matrix, and adds a constant row."""
    left, dimensions = node.inputs[0], rank(node.inputs[0])
    if not is_float32(left) or left is None or left.const_value is not None:
        return False
    if node.op_type == "MatMul":
        return dimensions is not None and dimensions >= MATRIX_RANK
    plain = number(node, "alpha", 1.0) == number(node, "beta", 1.0) == 1.0 and not integer(node, "transA", 0)
    bias = node.inputs[2] if len(node.inputs) > MATRIX_RANK else None
    row, matrix = constant(bias), constant(node.inputs[1])
    width = 0 if matrix is None else matrix.shape[0 if integer(node, "transB", 0) else 1]
    return plain and (bias is None or (row is not None and row.shape in ((width,), (1, width))))
