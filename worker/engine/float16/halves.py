"""What a file has in half precision already, float16 or bfloat16."""

import math
from collections.abc import Iterator

import onnx

from worker.engine.inspection import walk

HALVES = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


def computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether a node reads something in half precision and is no Cast: what is only stored so does not count."""
    known = set(_values(model))
    return any(name in known for node in walk.nodes(model) if node.op_type != "Cast" for name in node.input)


def half_elements(model: onnx.ModelProto) -> int:
    """How many numbers its initializers hold in half precision."""
    return sum(math.prod(one.dims) for graph in walk.all_graphs(model) for one in graph.initializer if _is_half(one))


def _values(model: onnx.ModelProto) -> Iterator[str]:
    """Names of tensors that are known to be in half precision."""
    for graph in walk.all_graphs(model):
        yield from (tensor.name for tensor in graph.initializer if _is_half(tensor))
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.elem_type in HALVES:
                yield value.name
    for node in walk.nodes(model):
        for attribute in node.attribute:
            cast = node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALVES
            if cast or (node.op_type == "Constant" and _is_half(attribute.t)):
                yield from node.output


def _is_half(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in HALVES
