"""Places: the nodes of a user's graph whose weight may become a product of smaller ones, and why others may not."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.moments.products import Product, as_rows
from worker.engine.moments.reading import MOST_TERMS
from worker.engine.nodes import CONV_RANK, MATRIX_RANK, constant_tensor, integer, is_operator
from worker.engine.reasons import EXCLUDED, INSIDE_FUNCTION, NOT_ASKED

OPERATORS = ("Conv", "Gemm", "MatMul")
IN_CONTROL_FLOW = "inside control flow"
SHARED = "its weight is read by other nodes as well"
MOVED = "its weight comes through other operators: `optimize_graph` before this pass folds them"
NOT_FLOAT32 = "its weight is not float32"
EMPTY = "its weight has no elements"
NOT_FINITE = "its weight holds NaN or infinity"
GROUPED = "a grouped convolution"
NOT_TWO_AXES = "a convolution over other than two axes of space"
STACKED = "a stack of matrices"
LARGE = f"second moments between its more than {MOST_TERMS:,} terms would take gigabytes"
TRANSPOSED = "its input is transposed"


@dataclass(frozen=True)
class Place:
    """A product whose weight no other node reads. `weight` is the name of that constant."""

    product: Product
    weight: str

    @property
    def name(self) -> str:
        return self.product.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.product.weight_shape

    @property
    def is_conv(self) -> bool:
        return self.product.node.op_type == "Conv"

    @property
    def parameters(self) -> int:
        """Elements of the weight; also the multiplications that one place of the output takes."""
        return self.product.channel_count * self.product.terms

    def rows(self) -> np.ndarray:
        """The weight as `(N, K)` float64, an output channel a row."""
        return as_rows(self.array(), self.product.channel_axis).astype(np.float64)

    def array(self) -> np.ndarray:
        """The weight, float32, of its own shape."""
        tensor = constant_tensor(weight_of(self.product.node))
        if tensor is None:
            raise ValueError(f"the weight of {self.name!r} is no constant")
        return tensor.numpy()


@dataclass(frozen=True)
class Found:
    """`reasons` says by node why it stays as it is; `nodes` names every node of the graph."""

    places: list[Place] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()


def find_places(model: ir.Model, operators: Collection[str], exclude: Collection[str]) -> Found:
    """In the order of the graph, whose nodes must all be named. Products of two activations are not counted at all."""
    found = Found(nodes=frozenset(node.name or "" for node in model.graph.all_nodes()))
    for node in model.graph.all_nodes():
        if not is_operator(node, *OPERATORS) or len(node.inputs) < MATRIX_RANK or not _has_weight(node):
            continue
        reason = _against(model.graph, node, operators, exclude)
        if reason is not None:
            found.reasons[node.name or ""] = reason
            continue
        weight = weight_of(node)
        tensor = constant_tensor(weight)
        if tensor is not None:
            found.places.append(Place(Product(node, tuple(tensor.shape.numpy())), weight.name or ""))
    for function in model.functions.values():
        inner = [node for node in function if is_operator(node, *OPERATORS)]
        found.reasons.update({f"{function.name}/{node.name or node.op_type}": INSIDE_FUNCTION for node in inner})
    return found


def weight_of(node: ir.Node) -> ir.Value:
    weight = node.inputs[1]
    if weight is None:
        raise ValueError(f"{node.name!r} has no weight")
    return weight


def _has_weight(node: ir.Node) -> bool:
    """Whether the second input is a constant, or one that something moves about."""
    weight = node.inputs[1]
    if weight is None:
        return False
    return constant_tensor(weight) is not None or _moved(weight)


def _moved(weight: ir.Value) -> bool:
    node = weight.producer()
    return node is not None and all(value is None or constant_tensor(value) is not None for value in node.inputs)


def _against(graph: ir.Graph, node: ir.Node, operators: Collection[str], exclude: Collection[str]) -> str | None:
    """Why a node stays as it is, where it does."""
    if node.name in exclude:
        return EXCLUDED
    if node.op_type not in operators:
        return NOT_ASKED
    return IN_CONTROL_FLOW if node.graph is not graph else _against_weight(node)


def _against_weight(node: ir.Node) -> str | None:
    weight = weight_of(node)
    tensor = constant_tensor(weight)
    if tensor is None:
        return MOVED
    if tensor.dtype != ir.DataType.FLOAT:
        return NOT_FLOAT32
    if len(weight.uses()) > 1 or weight.is_graph_output():
        return SHARED
    if not tensor.size:
        return EMPTY
    shape = tuple(tensor.shape.numpy())
    against = _against_shape(node, shape) or (LARGE if Product(node, shape).terms > MOST_TERMS else None)
    return against or (None if np.isfinite(tensor.numpy()).all() else NOT_FINITE)


def _against_shape(node: ir.Node, shape: tuple[int, ...]) -> str | None:
    if node.op_type == "Conv":
        if len(shape) != CONV_RANK:
            return NOT_TWO_AXES
        return GROUPED if integer(node, "group", 1) > 1 else None
    if len(shape) != MATRIX_RANK:
        return STACKED
    return TRANSPOSED if node.op_type == "Gemm" and integer(node, "transA", 0) else None
