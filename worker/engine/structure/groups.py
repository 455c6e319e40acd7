"""Groups: units that stand side by side in the output of a product, each of which can be taken out of the model.

A unit is everything that can only go as a whole: a channel with its filter, its scale and shift and the columns that
read it; a head with the columns of query, key and value that make it.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import is_operator
from worker.engine.reasons import EXCLUDED
from worker.engine.structure.cohorts import find_cohorts
from worker.engine.structure.propagation import propagate
from worker.engine.structure.sizes import Sizes
from worker.engine.structure.wiring import Slot, Wiring

NOT_READ = "no product reads it"
ALONE = "its only unit"
# Neither the number of a unit nor the -1 of where none lies.
NO_UNIT = -2


@dataclass(frozen=True, eq=False)
class Part:
    """What the units of a group have along one axis of a weight: `units` `(size,)` int64, -1 where none lies."""

    slot: Slot
    units: np.ndarray


@dataclass(frozen=True, eq=False)
class Group:
    """`roots[u]` is the set of atoms of unit `u`; units are in the order of the first producer's axis.

    `producers` make the units, `consumers` read them; of one whose axis holds other groups as well, a part.
    """

    name: str
    roots: np.ndarray
    producers: list[Part]
    consumers: list[Part]

    @property
    def width(self) -> int:
        """How many units could be taken out."""
        return len(self.roots)

    @property
    def frozen(self) -> int:
        """Units beside them that have to stay: as many as their part of what the first producer makes would hold."""
        stays = self.producers[0].units < 0
        return round(int(stays.sum()) * self.width / int((~stays).sum()))

    @property
    def run(self) -> int:
        """Of what the first producer makes, neighbours that one unit holds: 64 of a head that is so wide, 1 of two
        halves side by side.
        """
        units = self.producers[0].units
        starts = np.flatnonzero(np.diff(units, prepend=NO_UNIT))
        lengths = np.diff(np.append(starts, len(units)))
        return int(np.gcd.reduce(lengths[units[starts] >= 0]))


@dataclass(frozen=True)
class Structure:
    """The groups of a graph in its order, and by producer why its units stay, where all do."""

    model: ir.Model
    wiring: Wiring
    groups: list[Group]
    reasons: dict[str, str] = field(default_factory=dict)

    def without(self, excluded: Collection[str]) -> "Structure":
        """The same, where units that a node of one of these names makes stay."""
        names = {id(group): {part.slot.node.name or "" for part in group.producers} for group in self.groups}
        kept = [group for group in self.groups if not names[id(group)] & set(excluded)]
        reasons = {name: EXCLUDED for group in self.groups if group not in kept for name in names[id(group)]}
        return Structure(self.model, self.wiring, kept, self.reasons | reasons)

    @cached_property
    def cohorts(self) -> dict[str, list[np.ndarray]]:
        """By name of a group the numbers of its units that lie along the same axes."""
        found = find_cohorts(self.wiring, [group.roots for group in self.groups])
        return {group.name: cohorts for group, cohorts in zip(self.groups, found, strict=True)}

    def are_heads(self, group: Group) -> bool:
        """Whether its units hold neighbours and lie side by side where a Softmax is taken, as heads of attention do."""
        read = [node.inputs[0] for node in self.model.graph if is_operator(node, "Softmax", "Attention")]
        axes = [atoms for value in read if value is not None for atoms in self.wiring.axes.get(value, [])]
        roots = [self.wiring.atoms.roots(atoms) for atoms in axes if atoms is not None]
        return group.run > 1 and any(np.isin(one, group.roots).any() for one in roots)

    def kept_channels(self, gone: np.ndarray) -> dict[str, np.ndarray]:
        """By the name of what a product makes, where that gets narrower: the numbers of the channels that stay."""
        found: dict[str, np.ndarray] = {}
        for node in self.model.graph:
            if is_operator(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
                axes = self.wiring.axes.get(node.outputs[0], [])
                atoms = axes[1 if node.op_type.startswith("Conv") else -1] if axes else None
                if atoms is not None:
                    stays = ~np.isin(self.wiring.atoms.roots(atoms), gone)
                    if not stays.all():
                        found[node.outputs[0].name or ""] = np.flatnonzero(stays)
        return found


def find_structure(model: ir.Model, sizes: Sizes) -> Structure:
    """Every group of two units or more."""
    wiring = propagate(model, sizes)
    wired = [(slot, wiring.atoms.roots(slot.atoms)) for slot in wiring.producers]
    reasons: dict[str, str] = {}
    alive: list[tuple[Slot, np.ndarray]] = []
    for slot, roots in wired:
        free = wiring.free(roots)
        if not free.any():
            reasons[slot.node.name or ""] = _reason(roots, wiring)
            continue
        alive.append((slot, np.where(free, roots, -1)))
    groups = []
    for members in _connected(alive):
        group = _group(members, wiring)
        if group.width > 1:
            groups.append(group)
        else:
            reasons |= {part.slot.node.name or "": ALONE for part in group.producers}
    return Structure(model, wiring, groups, reasons)


def _reason(roots: np.ndarray, wiring: Wiring) -> str:
    """The reason of most of the units."""
    found = Counter(wiring.atoms.reason(int(root)) or NOT_READ for root in roots)
    return found.most_common(1)[0][0]


def _connected(alive: list[tuple[Slot, np.ndarray]]) -> list[list[tuple[Slot, np.ndarray]]]:
    """Producers that share a unit, directly or through others, in the order of their first."""
    clusters: list[tuple[set[int], list[tuple[Slot, np.ndarray]]]] = []
    for slot, roots in alive:
        own = set(roots[roots >= 0].tolist())
        touched = [cluster for cluster in clusters if cluster[0] & own]
        if not touched:
            clusters.append((own, [(slot, roots)]))
            continue
        first = touched[0]
        first[0].update(own)
        first[1].append((slot, roots))
        for other in touched[1:]:
            first[0].update(other[0])
            first[1].extend(other[1])
            clusters.remove(other)
    return [members for _, members in clusters]


def _group(members: list[tuple[Slot, np.ndarray]], wiring: Wiring) -> Group:
    order: dict[int, int] = {}
    for _, roots in members:
        for root in roots[roots >= 0].tolist():
            order.setdefault(root, len(order))
    units = np.fromiter(order, np.int64, len(order))
    consumers = [(slot, wiring.atoms.roots(slot.atoms)) for slot in wiring.consumers]
    return Group(
        name=members[0][0].node.name or "",
        roots=units,
        producers=[Part(slot, _numbered(roots, order)) for slot, roots in members],
        consumers=[Part(slot, _numbered(roots, order)) for slot, roots in consumers if np.isin(roots, units).any()],
    )


def _numbered(roots: np.ndarray, order: dict[int, int]) -> np.ndarray:
    return np.array([order.get(root, -1) for root in roots.tolist()], np.int64)
