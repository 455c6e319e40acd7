"""What is asked of the nodes and values of an onnx-ir graph, and how one node is put in the place of another."""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import STANDARD_DOMAINS, unused_name

CONV_RANK = 4
MATRIX_RANK = 2
TAKEN_NAMES = "names taken"


def opset(model: ir.Model) -> int:
    """Version of the standard operators; 0 where the model uses none."""
    return max((version for domain, version in model.opset_imports.items() if domain in STANDARD_DOMAINS), default=0)


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """What it reads there; None where nothing is given."""
    return node.inputs[index] if index < len(node.inputs) else None


def integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(int(value) for value in attribute.as_ints())


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


def free_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or a name made from it, that no value of the graph bears; from then on it counts as taken."""
    if TAKEN_NAMES not in graph.meta:
        graph.meta[TAKEN_NAMES] = _names(graph)
    return unused_name(wanted, graph.meta[TAKEN_NAMES])


def _names(graph: ir.Graph) -> set[str]:
    """Of every value, those of subgraphs included: a name means one thing in all of them."""
    found = {output.name or "" for node in graph.all_nodes() for output in node.outputs}
    for part in [graph, *graph.subgraphs()]:
        found |= {value.name or "" for value in part.inputs} | set(part.initializers)
    return found


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new constant under `name`, or a free name made from it."""
    unique = free_name(graph, name)
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(name=unique, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace(graph: ir.Graph, node: ir.Node, made: list[ir.Node]) -> None:
    """Put `made` in the place of `node`: the last one's outputs take over the readers and the names."""
    graph.insert_before(node, made)
    pairs = list(zip(node.outputs, made[-1].outputs, strict=False))
    names = [output.name for output, _ in pairs]
    for output, result in pairs:
        result.shape, result.type = output.shape, output.type
        output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    for name, (_, result) in zip(names, pairs, strict=True):
        result.name = name
