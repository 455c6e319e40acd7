"""Constants that folding made and that cost bytes: of what is small, or beside what stays in the file for others.

As of a table that an embedding reads and, transposed, the product at the end: once folded it is in the file twice. What
is computed from constants alone ONNX Runtime computes when it loads a file, so leaving it there costs no call any time.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from worker.engine.graph import STANDARD_DOMAINS, names_read, replace_field
from worker.engine.model_file import ModelFile
from worker.engine.nodes import MOVES

# They copy what they are given, or make much of little.
COPYING = MOVES | {"ConstantOfShape", "Range"}
LEAST_BYTES = 64 << 10
# What a constant is made of has to be that much smaller, as far as it does not stay anyway.
LEAST_GAIN = 4
NAMED = 5


@dataclass(frozen=True)
class Folded:
    """`nodes` compute the constant `name` from `constants`, which are gone from the folded file, and from others."""

    name: str
    size_bytes: int
    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]


def costly(before: ModelFile, after: ModelFile) -> list[Folded]:
    """Of the constants that folding made of the main graph's nodes `before`, those that cost bytes."""
    graph, held = before.structure().graph, {tensor.name: tensor for tensor in after.structure().graph.initializer}
    given = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output if output}
    ways: dict[str, tuple[list[onnx.NodeProto], set[str]]] = {}
    for name, tensor in held.items():
        maker = None if name in given else makers.get(name)
        if maker is None or not _copies(maker) or _bytes(tensor) <= LEAST_BYTES:
            continue
        way = _way(name, makers, given, held)
        if way is not None and LEAST_GAIN * _cost(*way, given) < _bytes(tensor):
            ways[name] = way
    whole = {tensor.name: tensor for tensor in before.load().graph.initializer} if ways else {}
    return [
        Folded(name, _bytes(held[name]), nodes, [whole[constant] for constant in sorted(gone)])
        for name, (nodes, gone) in ways.items()
    ]


def in_words(folded: Sequence[Folded]) -> list[str]:
    """What was folded, and how much it is: a list of no or one sentence."""
    if not folded:
        return []
    names = ", ".join(one.name for one in folded[:NAMED]) + (", ..." if len(folded) > NAMED else "")
    total = sum(one.size_bytes for one in folded) / 1e6
    return [f"Folding made {total:,.1f} MB of constants from small ones or beside their originals: {names}."]


def compute_again(model: onnx.ModelProto, folded: Sequence[Folded]) -> int:
    """Put the nodes back in the place of such constants, as far as they are still there; how many."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    back = [one for one in folded if one.name in known]
    names = {one.name for one in back}
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    present = known - names | {output for node in graph.node for output in node.output}
    nodes = {node.output[0]: node for one in back for node in one.nodes if present.isdisjoint(node.output)}
    constants = {tensor.name: tensor for one in back for tensor in one.constants if tensor.name not in present}
    replace_field(graph.initializer, [*kept, *constants.values()])
    replace_field(graph.node, [*nodes.values(), *graph.node])
    return len(back)


def _copies(node: onnx.NodeProto) -> bool:
    return node.op_type in COPYING and node.domain in STANDARD_DOMAINS


def _way(
    name: str, makers: Mapping[str, onnx.NodeProto], given: Collection[str], held: Collection[str]
) -> tuple[list[onnx.NodeProto], set[str]] | None:
    """The nodes that computed it from constants, and those of these that are `held` no longer; None where an input of
    the model had a say, be it by its shape.
    """
    nodes: dict[str, onnx.NodeProto] = {}
    gone: set[str] = set()
    waiting = [name]
    while waiting:
        value = waiting.pop()
        if value in held and value != name:
            continue
        if value in given:
            gone.add(value)
        elif value not in makers:
            return None
        elif makers[value].name not in nodes:
            nodes[makers[value].name] = makers[value]
            waiting.extend(names_read(makers[value]))
    return list(nodes.values()), gone


def _cost(nodes: list[onnx.NodeProto], gone: set[str], given: Mapping[str, onnx.TensorProto]) -> int:
    """Bytes of what would come back; a Constant node holds its tensor."""
    written: int = sum(node.ByteSize() for node in nodes)
    return written + sum(_bytes(given[name]) for name in gone)


def _bytes(tensor: onnx.TensorProto) -> int:
    elements: int = math.prod(tensor.dims)
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
