"""Units: the pieces of a graph that run in int8 or in float as a whole.

A unit is one node that has an int8 kernel, with the Relu or Clip behind it that the output's quantization makes
redundant. Nodes in subgraphs are no units: they stay in float.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

from worker.engine.float16.signatures import complete_types
from worker.engine.moments.products import Product
from worker.engine.nodes import (
    CONV_RANKS,
    MATRIX_RANK,
    constant,
    integer,
    is_float32,
    is_operator,
    number,
    only_reader,
    opset,
    rank,
    text,
)
from worker.engine.profiling import origin_of

# Before it the standard has no 8-bit operators, and the runtime's fusions stand on them.
LEAST_OPSET = 10


class Role(Enum):
    """How a node meets 8 bits."""

    WEIGHTED = "weighted"
    """Conv, Gemm, or MatMul with a constant matrix: int8 weights."""
    PRODUCT = "product"
    """MatMul of two activations."""
    ARITHMETIC = "arithmetic"
    """Computes in int8 with scales of its own on each side: Add, Mul, Concat, Sigmoid, ..."""
    CARRIER = "carrier"
    """Moves values without changing them; what goes in and what comes out share one scale: MaxPool, Reshape, ..."""
    FLOAT = "float"
    """Has weights and no int8 kernel: in an account of all nodes with weights, always in float."""


@dataclass(frozen=True)
class Unit:
    """`sources` are the activations that it reads; `output` is what leaves it."""

    node: ir.Node
    role: Role
    activation: ir.Node | None = None

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def is_depthwise(self) -> bool:
        """A convolution of each channel by a filter of its own."""
        groups = integer(self.node, "group", 1)
        return self.node.op_type == "Conv" and groups > 1 and self.weight_shape[:2] == (groups, 1)

    @property
    def in_words(self) -> str:
        """What it is: `depthwise 3x3 Conv`, `1x1 Conv`, `Conv of width 3`, `Add`."""
        if self.node.op_type != "Conv":
            return self.node.op_type
        depthwise = "depthwise " if integer(self.node, "group", 1) > 1 else ""
        sizes = [str(size) for size in self.weight_shape[2:]]
        # "3 Conv" would be three of them.
        return f"{depthwise}{'x'.join(sizes)} Conv" if len(sizes) > 1 else f"{depthwise}Conv of width {sizes[0]}"

    @property
    def nodes(self) -> list[ir.Node]:
        return [self.node] if self.activation is None else [self.node, self.activation]

    @property
    def kernel_names(self) -> list[str]:
        """The origins that a profile may give for what runs in its place: names of its nodes and of their outputs."""
        names = [name for node in self.nodes for name in (node.name, *(value.name for value in node.outputs))]
        return [origin_of(name or "") for name in names]

    @property
    def outputs(self) -> list[ir.Value]:
        """Without those that are optional and not asked for."""
        return [value for value in (self.activation or self.node).outputs if value.name]

    @property
    def output(self) -> ir.Value:
        return self.outputs[0]

    @property
    def sources(self) -> list[ir.Value]:
        """Activations read in 8 bits, in the order of the inputs, each once."""
        count = 1 if self.role in (Role.WEIGHTED, Role.CARRIER) else len(self.node.inputs)
        found = [value for value in self.node.inputs[:count] if value is not None and value.const_value is None]
        return list(dict.fromkeys(found))

    @property
    def weight(self) -> ir.Value:
        """The constant matrix or filter of a weighted unit."""
        weight = self.node.inputs[1]
        if self.role is not Role.WEIGHTED or weight is None:
            raise ValueError(f"{self.name!r} has no weight")
        return weight

    @property
    def weight_values(self) -> np.ndarray:
        """float32, of the weight's shape."""
        values = constant(self.weight)
        if values is None:
            raise ValueError(f"the weight of {self.name!r} is no constant")
        return values

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Without reading the values, which is a copy of them."""
        values = self.weight.const_value
        if values is None:
            raise ValueError(f"the weight of {self.name!r} is no constant")
        return tuple(values.shape.numpy())

    @property
    def product(self) -> Product:
        """What a weighted unit computes."""
        return Product(self.node, self.weight_shape)

    @property
    def channel_count(self) -> int:
        """Output channels of a weighted unit."""
        return self.product.channel_count

    @property
    def bias(self) -> ir.Value | None:
        return self.node.inputs[2] if self.role is Role.WEIGHTED and len(self.node.inputs) > MATRIX_RANK else None

    @property
    def channel_axis(self) -> int:
        """The axis of the weight that counts output channels."""
        return self.product.channel_axis


def units_of(model: ir.Model) -> list[Unit]:
    """Every node of the main graph that has an int8 kernel as it stands, in the order of the graph.

    Tensors get the types that schemas say they have: inference knows few of the runtime's own operators.
    """
    complete_types(model)
    found = []
    for node in model.graph if opset(model) >= LEAST_OPSET else ():
        role = _role(node)
        if role is not None and all(is_float32(value) for value in _tensors(node, role)):
            found.append(Unit(node, role, _absorbed(node, model.graph) if role is not Role.CARRIER else None))
    return found


def _role(node: ir.Node) -> Role | None:
    return FORMS[node.op_type](node) if is_operator(node, *FORMS) else None


def _tensors(node: ir.Node, role: Role) -> list[ir.Value | None]:
    """What must be float32 for an int8 kernel to exist."""
    if role in (Role.WEIGHTED, Role.CARRIER):
        return [node.inputs[0], node.outputs[0]]
    return [*node.inputs, *node.outputs]


def _absorbed(node: ir.Node, graph: ir.Graph) -> ir.Node | None:
    """The Relu or Clip that is the one reader of the node's one output."""
    reader = only_reader(node.outputs[0]) if len(node.outputs) == 1 else None
    if reader is None:
        return None
    bounded = is_operator(reader, "Relu") or (is_operator(reader, "Clip") and clip_bounds(reader) is not None)
    return reader if bounded and reader.graph is graph else None


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """The constant bounds of a Clip from 0 upwards; None for any other."""
    low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if low is None or low.size != 1 or float(low.item()) != 0.0:
        return None
    upper = node.inputs[2] if len(node.inputs) > MATRIX_RANK else None
    high = constant(upper)
    if upper is None:
        return 0.0, float("inf")
    return (0.0, float(high.item())) if high is not None and high.size == 1 else None


def _is_computed(value: ir.Value | None) -> bool:
    """Whether it is an activation, of which alone there are ranges."""
    return value is not None and value.const_value is None


def _conv(node: ir.Node) -> Role | None:
    weight, bias = constant(node.inputs[1]), node.inputs[2] if len(node.inputs) > MATRIX_RANK else None
    if weight is None or weight.dtype != np.float32 or weight.ndim not in CONV_RANKS or not weight.size:
        return None
    if not _is_computed(node.inputs[0]):
        return None
    return Role.WEIGHTED if bias is None or constant(bias) is not None else None


def _gemm(node: ir.Node) -> Role | None:
    weight, bias = constant(node.inputs[1]), node.inputs[2] if len(node.inputs) > MATRIX_RANK else None
    plain = number(node, "alpha", 1.0) == number(node, "beta", 1.0) == 1.0 and not integer(node, "transA", 0)
    if weight is None or weight.dtype != np.float32 or not weight.size or not plain:
        return None
    if not _is_computed(node.inputs[0]):
        return None
    width = weight.shape[0 if integer(node, "transB", 0) else 1]
    offsets = constant(bias)
    if bias is not None and (offsets is None or offsets.shape not in ((width,), (1, width))):
        return None
    return Role.WEIGHTED


def _matmul(node: ir.Node) -> Role | None:
    left, right = node.inputs[0], node.inputs[1]
    if not _is_computed(left):
        return None
    weight = constant(right)
    if weight is not None:
        plain = weight.ndim == MATRIX_RANK and weight.dtype == np.float32 and weight.size
        return Role.WEIGHTED if plain else None
    return Role.PRODUCT if _is_computed(right) else None


def _arithmetic(node: ir.Node) -> Role | None:
    """At least one operand is computed; constants become 8-bit constants."""
    computed = any(_is_computed(value) for value in node.inputs)
    known = all(value is None or value.const_value is None or constant(value) is not None for value in node.inputs)
    return Role.ARITHMETIC if computed and known else None


def _carrier(node: ir.Node) -> Role | None:
    return Role.CARRIER if len(node.outputs) == 1 and _is_computed(node.inputs[0]) else None


def _max_pool(node: ir.Node) -> Role | None:
    return _carrier(node) if rank(node.inputs[0]) in CONV_RANKS else None


def _resize(node: ir.Node) -> Role | None:
    nearest = text(node, "mode", "nearest") == "nearest"
    # What it makes up outside of the region need not lie in the range of what it reads, and runs in float anyway.
    crops = text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return _carrier(node) if nearest and not crops and rank(node.inputs[0]) in CONV_RANKS else None


def _split(node: ir.Node) -> Role | None:
    """The runtime moves 8 bits only where every part is quantized, so somebody must read each."""
    if not all(value.uses() or value.is_graph_output() for value in node.outputs):
        return None
    return Role.CARRIER if _is_computed(node.inputs[0]) else None


FORMS: dict[str, Callable[[ir.Node], Role | None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _arithmetic,
    "Mul": _arithmetic,
    "Concat": _arithmetic,
    "Sigmoid": _arithmetic,
    "LeakyRelu": _arithmetic,
    "GlobalAveragePool": _arithmetic,
    "AveragePool": _arithmetic,
    "Softmax": _arithmetic,
    "MaxPool": _max_pool,
    "Resize": _resize,
    "Split": _split,
    "Reshape": _carrier,
    "Flatten": _carrier,
    "Transpose": _carrier,
    "Squeeze": _carrier,
    "Unsqueeze": _carrier,
    "Slice": _carrier,
}
