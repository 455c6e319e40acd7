"""Taking units out of a user's own file: weights lose positions, and what counts them counts the rest.

Names, inputs, outputs and axes stay, and so does every node and constant that has no part in what is taken out.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, helper, numpy_helper

from worker.engine.graph import STANDARD_DOMAINS, nodes_of, replace_field, unused_name
from worker.engine.model_file import ModelFile
from worker.engine.nodes import constant_tensor, integer, operand
from worker.engine.overwriting import constants_of
from worker.engine.structure.attention import head_axis
from worker.engine.structure.carrying import given_bounds
from worker.engine.structure.groups import Structure
from worker.engine.structure.recurrence import GATES, STATES, is_zero
from worker.engine.structure.reshaping import rewritten
from worker.engine.structure.shape_numbers import OPEN, Place
from worker.engine.structure.wiring import Wiring
from worker.engine.structure.writing import drop_unread, write

# Before it a Split holds its sizes as an attribute.
SPLIT_BY_INPUT = 13
# By operator that counts groups of channels: in which attribute, and of which operand along which axis.
GROUPS = {"Conv": ("group", 1, 0), "GroupNormalization": ("num_groups", 0, 1)}


class Cut:
    """One cut: the sets of atoms `gone` out of `structure`, whose nodes are those of `model` in their order."""

    def __init__(self, model: ModelFile, structure: Structure, gone: np.ndarray) -> None:
        self._file, self._structure, self._gone = model, structure, gone
        self._proto = model.load()
        self._inside: set[str] = set()
        """Constants that are no longer what lay beside the file."""
        self._shapes: dict[tuple[str, int, int], str] = {}
        """By shape, axis and what is left of it: the shape that says so."""

    @property
    def _wiring(self) -> Wiring:
        return self._structure.wiring

    def write(self, folder: Path) -> ModelFile:
        """The model without them, in the empty `folder`."""
        self._shrink_constants()
        for node, proto in zip(self._structure.model.graph, list(self._proto.graph.node), strict=True):
            correction = CORRECTIONS.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
            if correction is not None:
                correction(self, node, proto)
        self._shrink_declared()
        drop_unread(self._proto.graph, self._file.structure().graph)
        return write(self._proto, self._file, folder, self._inside)

    def kept(self, atoms: np.ndarray) -> np.ndarray:
        """bool: which of these stay."""
        return ~np.isin(self._wiring.atoms.roots(atoms), self._gone)

    def shrunk(self, value: ir.Value | None) -> dict[int, int]:
        """The axes of a value that get shorter, with their new size."""
        found = {}
        for axis, atoms in enumerate(self._wiring.axes.get(value, []) if value is not None else []):
            if atoms is not None and not (kept := self.kept(atoms)).all():
                found[axis] = int(kept.sum())
        return found

    def _shrink_constants(self) -> None:
        values = {value.name: value for value in self._wiring.axes if constant_tensor(value) is not None}
        for name, tensor in constants_of(self._proto.graph):
            value = values.get(name)
            if value is None or not self.shrunk(value):
                continue
            array = numpy_helper.to_array(tensor)
            for axis, atoms in enumerate(self._wiring.axes[value]):
                if atoms is not None:
                    array = array.compress(self.kept(atoms), axis=axis)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))

    def _shrink_declared(self) -> None:
        """Sizes that the file annotates: of values between nodes, and of constants that old files list as inputs."""
        graph = self._proto.graph
        values = {value.name: value for value in self._wiring.axes}
        for declared in [*graph.value_info, *graph.input]:
            for axis, size in self.shrunk(values.get(declared.name)).items():
                dimensions = declared.type.tensor_type.shape.dim
                if axis < len(dimensions):
                    fixed = dimensions[axis].HasField("dim_value")
                    dimensions[axis].Clear()
                    # What has a name or none is of another size in other calls.
                    if fixed:
                        dimensions[axis].dim_value = size

    def correct_groups(self, node: ir.Node, proto: NodeProto) -> None:
        """A grouped convolution and a GroupNormalization have as many groups as are left."""
        name, index, axis = GROUPS[node.op_type]
        groups, value = integer(node, name, 1), node.inputs[index]
        channels = self._wiring.axes[value][axis] if value in self._wiring.axes else None
        if groups > 1 and channels is not None:
            _set_integer(proto, name, int(self.kept(channels).reshape(groups, -1)[:, 0].sum()))

    def correct_heads(self, node: ir.Node, proto: NodeProto) -> None:
        """As many heads of queries, and of keys and values, as are left, where an Attention counts them."""
        for value, name in zip(node.inputs, ("q_num_heads", "kv_num_heads"), strict=False):
            if value in self._wiring.axes and name in node.attributes:
                atoms = self._wiring.axes[value][head_axis(self._wiring, value)]
                if atoms is not None:
                    kept = self.kept(atoms)
                    _set_integer(proto, name, integer(node, name, 0) * int(kept.sum()) // len(kept))

    def correct_units(self, node: ir.Node, proto: NodeProto) -> None:
        """A recurrent layer has as many hidden units as are left, and zeros to begin with need not be given to it."""
        left = self.shrunk(node.inputs[2]).get(2)
        if left is None:
            return
        kept = [attribute for attribute in proto.attribute if attribute.name != "hidden_size"]
        replace_field(proto.attribute, [*kept, helper.make_attribute("hidden_size", left)])
        for index in STATES:
            state = operand(node, index)
            if state is not None and is_zero(state):
                proto.input[index] = ""

    def correct_shape(self, node: ir.Node, proto: NodeProto) -> None:
        """The numbers of a Reshape that name what got shorter."""
        axes = self._wiring.axes.get(node.outputs[0], [])
        shrunk = self.shrunk(node.outputs[0])
        for axis, place in (rewritten(node, self._wiring, axes) or {}).items():
            atoms = axes[axis]
            if axis in shrunk and atoms is not None:
                self._put(proto, axis, place, place.number(len(atoms), shrunk[axis]))

    def _put(self, proto: NodeProto, axis: int, place: Place, number: int) -> None:
        """Let the shape of a Reshape have this number; whatever else reads the same shape keeps the old one."""
        key = proto.input[1], axis, number
        if key in self._shapes:
            proto.input[1] = self._shapes[key]
            return
        reader, position = proto, 1
        for node, operand_of_it in place.steps:
            reader = self._copied_for(reader, position, node)
            position = operand_of_it
        tensor = dict(constants_of(self._proto.graph)).get(reader.input[position])
        size = self._wiring.size(place.value) or ()
        if tensor is not None:
            array = numpy_helper.to_array(tensor).copy()
            array.reshape(-1)[place.index] = number
            self._give(reader, position, array)
        elif math.prod(size) == 1:
            self._give(reader, position, np.full(size, number, np.int64))
        else:
            self._left_open(proto, axis, math.prod(size))
        if place.steps or tensor is None:
            self._shapes[key] = proto.input[1]

    def _left_open(self, proto: NodeProto, axis: int, count: int) -> None:
        """Let a Reshape read its computed shape of `count` numbers with an open one in the place of one of them."""
        graph, shape = self._proto.graph, proto.input[1]
        longer, made = (unused_name(f"{shape}_{part}", self._taken()) for part in ("longer", "pruned"))
        place = next(number for number, one in enumerate(graph.node) if one.output[0] == proto.output[0])
        last = self._constant(f"{shape}_open", np.array([OPEN], np.int64))
        picked = [count if number == axis else number for number in range(count)]
        places = self._constant(f"{shape}_picked", np.array(picked, np.int64))
        graph.node.insert(place, helper.make_node("Concat", [shape, last], [longer], longer, axis=0))
        graph.node.insert(place + 1, helper.make_node("Gather", [longer, places], [made], made, axis=0))
        proto.input[1] = made

    def _copied_for(self, reader: NodeProto, position: int, node: ir.Node) -> NodeProto:
        """A node beside `node` that computes the same, for what `reader` reads there."""
        nodes = self._proto.graph.node
        copy = NodeProto()
        copy.CopyFrom(next(one for one in nodes if node.outputs[0].name in one.output))
        copy.name = unused_name(f"{copy.name}_pruned", {one.name for one in nodes_of(self._proto.graph)})
        copy.output[0] = unused_name(f"{copy.output[0]}_pruned", self._taken())
        place = next(number for number, one in enumerate(nodes) if one.output[0] == reader.output[0])
        nodes.insert(place, copy)
        reader.input[position] = copy.output[0]
        return nodes[place]

    def _taken(self) -> set[str]:
        """Names that values have."""
        graph = self._proto.graph
        taken = {one for other in nodes_of(graph) for one in [*other.input, *other.output]}
        return taken | {one.name for one in graph.initializer} | {one.name for one in graph.input}

    def correct_split(self, node: ir.Node, proto: NodeProto) -> None:
        """How many positions each part gets."""
        axis = integer(node, "axis", 0)
        rank = self._wiring.rank(node.outputs[0])
        if axis % rank not in self.shrunk(node.inputs[0]):
            return
        parts = [self._wiring.axes[output][axis % rank] for output in node.outputs]
        sizes = [int(self.kept(atoms).sum()) if atoms is not None else 0 for atoms in parts]
        kept = [attribute for attribute in proto.attribute if attribute.name not in ("split", "num_outputs")]
        del proto.attribute[:]
        proto.attribute.extend(kept)
        if self._structure.model.opset_imports.get("", 0) < SPLIT_BY_INPUT:
            proto.attribute.append(helper.make_attribute("split", sizes))
        else:
            self._give(proto, 1, np.array(sizes, np.int64))

    def correct_slice(self, node: ir.Node, proto: NodeProto) -> None:
        """Bounds along what got shorter, counted in what is left. Others stay: their axes may be of any size."""
        source = node.inputs[0]
        size = self._wiring.size(source) if source is not None else None
        bounds = given_bounds(node, len(size)) if size is not None else None
        shrunk = self.shrunk(source)
        if source is None or not bounds or not set(bounds) & set(shrunk):
            return
        for axis in set(bounds) & set(shrunk):
            atoms = self._wiring.axes[source][axis]
            if atoms is not None:
                start, end, step = bounds[axis]
                # What shrinks has a step of 1, so both are positions.
                first, last, _ = slice(start, end, step).indices(len(atoms))
                before = np.concatenate([[0], np.cumsum(self.kept(atoms))])
                bounds[axis] = (int(before[first]), int(before[last]), step)
        starts, ends = ([bound[place] for bound in bounds.values()] for place in (0, 1))
        if "starts" in node.attributes:
            for attribute in proto.attribute:
                if attribute.name in ("starts", "ends"):
                    numbers = starts if attribute.name == "starts" else ends
                    attribute.CopyFrom(helper.make_attribute(attribute.name, numbers))
            return
        self._give(proto, 1, np.array(starts, np.int64))
        self._give(proto, 2, np.array(ends, np.int64))

    def _give(self, node: NodeProto, index: int, array: np.ndarray) -> None:
        """Let `node` read this constant, in the dtype of the one it has: in place where nobody else reads that, else
        under a new name.
        """
        graph = self._proto.graph
        name = node.input[index] if index < len(node.input) else ""
        tensor = dict(constants_of(graph)).get(name)
        readers = sum(one == name for other in nodes_of(graph) for one in other.input)
        if tensor is not None:
            array = array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if tensor is not None and readers == 1:
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            self._inside.add(tensor.name)
            return
        node.input.extend([""] * (index + 1 - len(node.input)))
        node.input[index] = self._constant(f"{name or node.output[0]}_pruned", array)

    def _constant(self, wanted: str, array: np.ndarray) -> str:
        """The name of a new one."""
        name = unused_name(wanted, self._taken())
        self._proto.graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _set_integer(proto: NodeProto, name: str, value: int) -> None:
    next(attribute for attribute in proto.attribute if attribute.name == name).i = value


CORRECTIONS: dict[str, Callable[[Cut, ir.Node, NodeProto], None]] = {
    **dict.fromkeys(GROUPS, Cut.correct_groups),
    "Attention": Cut.correct_heads,
    "Reshape": Cut.correct_shape,
    "Split": Cut.correct_split,
    "Slice": Cut.correct_slice,
    **dict.fromkeys(GATES, Cut.correct_units),
}


def cut(model: ModelFile, structure: Structure, gone: np.ndarray, folder: Path) -> ModelFile:
    """A copy of `model` in the empty `folder` without the units whose sets of atoms are `gone` `(n,)`."""
    return Cut(model, structure, gone).write(folder)
