"""Whole numbers that exporters compute of constants alone, as PyTorch does those that a Pad is given."""

import math

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from worker.engine.nodes import constant_tensor, is_operator
from worker.engine.structure.dimensions import constant_integers
from worker.engine.structure.sizes import Sizes

FOLDED = (
    "Cast", "Concat", "ConstantOfShape", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
# No operator counts more axes than this, and larger tensors are no such numbers.
MOST_ELEMENTS = 64


def folded_integers(value: ir.Value | None, sizes: Sizes) -> list[int] | None:
    """The numbers of a tensor that no input of the graph has a say in; None where one has, or another operator."""
    numbers = constant_integers(value)
    if value is None or numbers is not None:
        return numbers
    nodes, tensors = list[ir.Node](), dict[str, TensorProto]()
    if not _collect(value, sizes, nodes, tensors):
        return None
    graph = helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "constants",
        [],
        [helper.make_empty_tensor_value_info(value.name or "")],
        list(tensors.values()),
    )
    within = nodes[-1].graph
    version = 1 if within is None else within.opset_imports.get("", 1)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    (found,) = ReferenceEvaluator(model).run(None, {})
    return [int(number) for number in np.asarray(found).reshape(-1)]


def _collect(value: ir.Value, sizes: Sizes, nodes: list[ir.Node], tensors: dict[str, TensorProto]) -> bool:
    """Whether `value` is made of constants; `nodes` are those that make it, in order, of `tensors`."""
    tensor = None if value.is_graph_input() else constant_tensor(value)
    size = sizes.get(value.name or "", ()) if tensor is None else tuple(tensor.shape.numpy())
    if math.prod(size) > MOST_ELEMENTS:
        return False
    if tensor is not None:
        tensors[value.name or ""] = numpy_helper.from_array(tensor.numpy(), value.name)
        return True
    node = value.producer()
    if node is None or not is_operator(node, *FOLDED):
        return False
    if node in nodes:
        return True
    if not all(_collect(one, sizes, nodes, tensors) for one in node.inputs if one is not None):
        return False
    nodes.append(node)
    return True
