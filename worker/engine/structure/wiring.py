"""What propagation writes down: which atoms lie along each axis of each value, and who reads and makes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import constant_tensor, is_operator
from worker.engine.structure.atoms import Atoms
from worker.engine.structure.dimensions import Dimension, Dimensions
from worker.engine.structure.sizes import Sizes

Axes = list[np.ndarray | None]
"""By axis the atoms `(size,)` int64 that lie along it; None: nothing can be taken out of it."""

FIXED = "it meets an axis that nothing can be taken out of"
MIXED = "an operator mixes along it"


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant as a node reads it: transposed by `order` on the way."""

    name: str
    order: tuple[int, ...]

    def read(self, array: np.ndarray) -> np.ndarray:
        """What the node reads, of what the constant holds."""
        return array.transpose(self.order)


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of a weight: `atoms` `(size,)` int64 lie along it. `axis` counts as the node reads the weight."""

    node: ir.Node
    weight: Weight
    axis: int
    atoms: np.ndarray


@dataclass
class Wiring:
    """`choices` says by node which way to take where a Reshape leaves several (`worker.engine.structure.reshaping`)."""

    sizes: Sizes
    choices: Mapping[ir.Node, int] = field(default_factory=dict)
    atoms: Atoms = field(default_factory=Atoms)
    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    producers: list[Slot] = field(default_factory=list)
    """Output axes of products: what is taken out is taken out here."""
    consumers: list[Slot] = field(default_factory=list)
    """Input axes of products: here it is missed."""
    ways: dict[ir.Node, list[np.ndarray]] = field(default_factory=dict)
    """By Reshape with several ways: the atoms that each of the ways it tried would tie together."""

    def __post_init__(self) -> None:
        self.dimensions = Dimensions(self.sizes)

    def size(self, value: ir.Value) -> tuple[int, ...] | None:
        tensor = constant_tensor(value)
        return tuple(tensor.shape.numpy()) if tensor is not None else self.sizes.get(value.name or "")

    def of(self, value: ir.Value) -> Axes:
        """The axes of a value; of a constant of floats that is seen for the first time, with atoms of its own.

        Raises:
            KeyError: the size of the value is not known.

        """
        if value not in self.axes:
            tensor = constant_tensor(value)
            if tensor is not None and tensor.dtype.is_floating_point() and not value.is_graph_input():
                shape = tuple(tensor.shape.numpy())
                self.axes[value] = [self.atoms.fresh(size) if size > 1 else None for size in shape]
            else:
                size = self.size(value)
                if size is None:
                    raise KeyError(value.name)
                self.axes[value] = [None] * len(size)
        return self.axes[value]

    def rank(self, value: ir.Value) -> int:
        return len(self.of(value))

    def freeze(self, value: ir.Value | None, reason: str, axes: list[int] | None = None) -> None:
        """Let everything along these axes of a value, by default along all, stay."""
        if value is None or (value not in self.axes and self.size(value) is None):
            return
        for index, atoms in enumerate(self.of(value)):
            if atoms is not None and (axes is None or index in axes):
                self.atoms.freeze(atoms, reason)

    def tie(self, operands: list[tuple[np.ndarray | None, int]]) -> np.ndarray | None:
        """One axis of a result from the axes of its operands, each with its size; 1 is repeated."""
        size = max((size for _, size in operands), default=1)
        full = [atoms for atoms, own in operands if own == size]
        for atoms, own in operands:
            if own != size and atoms is not None:
                self.atoms.freeze(atoms, FIXED)
        labelled = [atoms for atoms in full if atoms is not None]
        if not labelled:
            return None
        for atoms in labelled[1:]:
            self.atoms.unite(labelled[0], atoms)
        if len(labelled) < len(full):
            self.atoms.freeze(labelled[0], FIXED)
        return labelled[0]

    def broadcast(self, values: list[ir.Value]) -> Axes:
        """The axes of an element-wise result, as numpy aligns its operands."""
        known = [(self.of(value), self.size(value) or ()) for value in values]
        rank = max((len(axes) for axes, _ in known), default=0)
        made: Axes = []
        for back in range(-rank, 0):
            made.append(self.tie([(axes[back], size[back]) for axes, size in known if len(axes) >= -back]))
        return made

    def weight(self, value: ir.Value) -> Weight | None:
        """The constant behind a value that transpositions alone lie before."""
        transpositions, source = list[ir.Node](), value
        while constant_tensor(source) is None or source.is_graph_input():
            node = source.producer()
            if node is None or not is_operator(node, "Identity", "Transpose") or node.inputs[0] is None:
                return None
            transpositions += [node] if node.op_type == "Transpose" else []
            source = node.inputs[0]
        order = tuple(range(self.rank(source)))
        for node in reversed(transpositions):
            permutation = node.attributes.get("perm")
            moved = reversed(range(len(order))) if permutation is None else permutation.as_ints()
            order = tuple(order[axis] for axis in moved)
        return Weight(source.name or "", order)

    def read(self) -> np.ndarray:
        """The sets of atoms that some product reads."""
        found = [self.atoms.roots(slot.atoms) for slot in self.consumers]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def free(self, atoms: np.ndarray) -> np.ndarray:
        """bool: which of these can be taken out, as far as is known: nothing freezes them, and a product reads them."""
        return ~self.atoms.frozen(atoms) & np.isin(self.atoms.roots(atoms), self.read())

    def labelled(self, dimension: Dimension) -> np.ndarray | None:
        """The atoms along the axis whose size a number of some shape is."""
        axes = self.axes.get(dimension.value)
        return None if axes is None else axes[dimension.axis]
