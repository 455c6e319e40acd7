"""What is asked of the nodes and values of an onnx-ir graph, and how one node is put in the place of another."""

import numpy as np
import onnx_ir as ir

STANDARD_DOMAINS = ("", "ai.onnx")
CONV_RANK = 4
MATRIX_RANK = 2


def integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else str(attribute.as_string())


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of an initializer that no caller can override."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def is_float32(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def is_operator(node: ir.Node | None, *operators: str) -> bool:
    return node is not None and node.domain in STANDARD_DOMAINS and node.op_type in operators


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value which is no output of the graph; None where there are several, or none."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new constant under `name`, or a free name made from it."""
    unique = name
    while unique in graph.initializers:
        unique = f"{unique}_"
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(name=unique, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace(graph: ir.Graph, node: ir.Node, made: list[ir.Node]) -> None:
    """Put `made` in the place of `node`: the last one's first output takes over the readers and the name."""
    output, result = node.outputs[0], made[-1].outputs[0]
    result.shape, result.type = output.shape, output.type
    graph.insert_before(node, made)
    name = output.name
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    result.name = name
