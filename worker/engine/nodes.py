"""What is asked of the nodes and values of an onnx-ir graph, and how one node is put in the place of another."""

from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from worker.engine.graph import STANDARD_DOMAINS, unused_name

CONV_RANK = 4
# Of tensors and filters of convolutions over one to three axes of space.
CONV_RANKS = range(3, 6)
MATRIX_RANK = 2
TAKEN_NAMES = "names taken"
# Of constants that may be weights.
TRAINED_TYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
# They put elements elsewhere, or several times, and compute nothing.
MOVES = frozenset({"Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile"})
MOVES |= {"Transpose", "Unsqueeze"}


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
    """The array of an initializer that no caller can override.

    Right for rewriting a prepared graph, whose `Constant` nodes have become initializers: what it gives may be folded
    into something else.
    """
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of a `Constant` node that holds one; its elements are read when asked for.

    Right for looking at a user's file as it is, where shape and dtype often tell enough. Initializers that a caller may
    override are among them: who relies on the elements asks `is_graph_input` as well.
    """
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    attribute = node.attributes.get("value") if node is not None and is_operator(node, "Constant") else None
    return None if attribute is None else attribute.as_tensor()


def float32_constant(value: ir.Value | None) -> np.ndarray | None:
    """A float32 array that no caller can override, of an initializer or of a `Constant` node in any of its forms.

    Right for converting every float of a file, numbers that are attributes among them.
    """
    node = None if value is None else value.producer()
    array = held_by(node) if node is not None and is_operator(node, "Constant") else constant(value)
    return array if array is not None and array.dtype == np.float32 else None


def held_by(node: ir.Node) -> np.ndarray | None:
    """What a `Constant` node holds: a tensor, or numbers, float32 or int64, that are attributes of their own.

    None for text, and for a sparse tensor.
    """
    for kind, attribute in node.attributes.items():
        if kind == "value":
            return attribute.as_tensor().numpy()
        if kind in {"value_float", "value_floats"}:
            return np.array(attribute.value, np.float32)
        if kind in {"value_int", "value_ints"}:
            return np.array(attribute.value, np.int64)
    return None


def constant_names(graph: ir.Graph) -> list[str]:
    """Initializers and outputs of `Constant` nodes: what `constant_tensor` may know."""
    nodes = [node.outputs[0].name or "" for node in graph if is_operator(node, "Constant")]
    return [*graph.initializers, *nodes]


def sources_of(value: ir.Value | None) -> list[ir.Value]:
    """The constants of float32 or float64 that a value is made of by moving elements about."""
    found, stack, seen = [], [value], set()
    while stack:
        one = stack.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        node = one.producer()
        if one.const_value is not None or is_operator(node, "Constant"):
            tensor = constant_tensor(one)
            found.extend([one] if tensor is not None and tensor.dtype in TRAINED_TYPES else [])
        elif node is not None and is_operator(node, *MOVES):
            stack.extend(node.inputs if node.op_type == "Concat" else node.inputs[:1])
    return found


def rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def is_float32(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def is_operator(node: ir.Node | None, *operators: str) -> TypeGuard[ir.Node]:
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
