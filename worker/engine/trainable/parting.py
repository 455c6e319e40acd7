"""Tensors that an exporter merged because they were equal, parted again before they are trained.

PyTorch's exporters store equal tensors once. In a network that was never trained all scales and variances are ones and
all shifts, means and biases zeros, so that many layers read one constant, and a scale is its own running variance.
Trained like that, they are one parameter. Whether two tensors were one in torch, a file does not say: PyTorch's older
exporter leaves an Identity with the second one's name, tied or not. So a constant is parted where nobody has chosen it:

1. All of its elements are one number, along one axis at most: so scales, shifts and biases are drawn. Equal vectors of
   anything else, and matrices, are equal because they were tied, as an embedding and the layer behind it are.
2. What reads it takes it for a scale, a shift, a bias or a running statistic. Other readers, formulas among them, keep
   it as it is.
3. Readings by one layer that is applied several times stay together: nodes that share another weight, and nodes behind
   such nodes.

What is computed stays the same, bit for bit.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import GraphProto, TensorProto

from worker.engine.graph import qualified
from worker.engine.model_file import ModelFile
from worker.engine.nodes import MOVES, TRAINED_TYPES, constant_tensor, free_name, sources_of
from worker.engine.trainable.weights import OPERANDS, activations, kind_of, wide_axes

Reading = tuple[ir.Node, int]


@dataclass(frozen=True)
class Share:
    """A part of the readings of one constant, of a layer's: which inputs of which nodes, by their place in the file.

    `identity` is the place of an Identity of that constant whose name the share takes over, and which goes.
    """

    name: str
    readers: list[tuple[int, int]]
    identity: int | None = None


@dataclass(frozen=True)
class Parted:
    """`origins`: by the name of each constant that is new in `model` the one that it was a part of."""

    model: ModelFile
    origins: dict[str, str] = field(default_factory=dict)


def part(model: ModelFile, whole: set[str], folder: Path) -> Parted:
    """A copy of `model` in the empty `folder`, all else in it as it was; the model itself where nothing is merged.

    Constants of the names in `whole` are left as they are.
    """
    graph = ir.load(model.path).graph
    shares = {name: found for name, found in merged(graph).items() if name not in whole}
    if not shares:
        return Parted(model)
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.files()[1:]:
        shutil.copyfile(file, folder / file.name)
    proto = model.structure()
    _write(proto.graph, shares)
    made = ModelFile(folder / model.path.name)
    made.path.write_bytes(proto.SerializeToString(deterministic=True))
    return Parted(made, {share.name: name for name, found in shares.items() for share in found})


def merged(graph: ir.Graph) -> dict[str, list[Share]]:
    """By constant the shares that become constants of their own; whatever is in none of them keeps the constant."""
    filled = {value for value in graph.initializers.values() if len(value.uses()) > 1 and _is_filled(value)}
    if not filled:
        return {}
    active, layers = activations(graph), _layers(graph, filled)
    places = {node: place for place, node in enumerate(graph)}
    found = {value.name or "": _shares(graph, value, active, layers, places) for value in filled}
    return {name: found[name] for name in graph.initializers if found.get(name)}


def _is_filled(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype not in TRAINED_TYPES or value.is_graph_input():
        return False
    if not len(tensor.shape) or not tensor.size or wide_axes(value) > 1:
        return False
    array = tensor.numpy().reshape(-1)
    return bool(np.isfinite(array[0]) and (array == array[0]).all())


def _shares(
    graph: ir.Graph, value: ir.Value, active: set[ir.Value], layers: dict[ir.Node, int], places: dict[ir.Node, int]
) -> list[Share]:
    groups: dict[frozenset[tuple[int, int]], list[Reading]] = {}
    kept = value.is_graph_output()
    for node, index in sorted(_uses(value), key=lambda use: (places.get(use[0], -1), use[1])):
        readings = _readings(node, index)
        if node in places and readings and all(_is_vector_of(one, value, active) for one in readings):
            groups.setdefault(frozenset((layers[reader], at) for reader, at in readings), []).append((node, index))
        else:
            kept = True
    if not kept and groups:
        # The constant's own name is that of a tensor which something reads without an Identity, where there is one.
        direct = (key for key, uses in groups.items() if not any(_is_stand_in(node) for node, _ in uses))
        groups.pop(next(direct, next(iter(groups))))
    return [_share(graph, uses, places) for uses in groups.values()]


def _uses(value: ir.Value) -> list[Reading]:
    return [(use.node, use.idx) for use in value.uses()]


def _readings(node: ir.Node, index: int) -> list[Reading]:
    """What reads a constant that this node does, behind whatever only moves its elements; none where it leaves."""
    if qualified(node) not in MOVES or node.op_type == "Concat":
        return [(node, index)]
    if index or any(moved.is_graph_output() for moved in node.outputs):
        return []
    return [reading for moved in node.outputs for use in _uses(moved) for reading in (_readings(*use) or [use])]


def _is_vector_of(reading: Reading, value: ir.Value, active: set[ir.Value]) -> bool:
    node, index = reading
    name = qualified(node)
    if index in OPERANDS.get(name, ()) or not any(made in active for made in node.outputs):
        return False
    return kind_of(name, index, value) is not None


def _is_stand_in(node: ir.Node) -> bool:
    return qualified(node) == "Identity" and not node.outputs[0].is_graph_output()


def _share(graph: ir.Graph, uses: list[Reading], places: dict[ir.Node, int]) -> Share:
    readers = [(places[node], index) for node, index in uses]
    stand_in = next((node for node, _ in uses if _is_stand_in(node)), None)
    if stand_in is not None:
        return Share(stand_in.outputs[0].name or "", readers, places[stand_in])
    node, index = uses[0]
    return Share(free_name(graph, f"{node.name or node.outputs[0].name}/input_{index}"), readers)


def _layers(graph: ir.Graph, filled: set[ir.Value]) -> dict[ir.Node, int]:
    """By node a number, the same where one layer is applied again.

    A node with weights is known by them, another one by what it is fed. Two that are fed the same are two: nobody
    applies a layer twice to one tensor.
    """
    numbers: dict[object, int] = {}
    found: dict[ir.Node, int] = {}
    times: Counter[object] = Counter()
    for node in graph:
        name = qualified(node)
        constants = [(index, source) for index, value in enumerate(node.inputs) for source in sources_of(value)]
        own = [source.name for index, source in constants if source not in filled and kind_of(name, index, source)]
        key: object = (name, *own)
        if not own:
            fed = tuple(_computed(node))
            times[name, fed] += 1
            key = (name, times[name, fed], tuple(_origin(value, found) for value in fed))
        found[node] = numbers.setdefault(key, len(numbers))
    return found


def _computed(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs that are made of no constants alone."""
    for value in node.inputs:
        if value is None or value.const_value is not None or sources_of(value):
            continue
        producer = value.producer()
        if producer is None or producer.op_type != "Constant":
            yield value


def _origin(value: ir.Value, found: dict[ir.Node, int]) -> object:
    node = value.producer()
    return value.name if node is None or node not in found else (found[node], value.index())


def _write(graph: GraphProto, shares: dict[str, list[Share]]) -> None:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    gone = []
    for name, found in shares.items():
        for share in found:
            copy = TensorProto()
            copy.CopyFrom(tensors[name])
            copy.name = share.name
            graph.initializer.append(copy)
            for place, index in share.readers:
                graph.node[place].input[index] = share.name
            gone += [] if share.identity is None else [share.identity]
    for place in sorted(gone, reverse=True):
        del graph.node[place]
