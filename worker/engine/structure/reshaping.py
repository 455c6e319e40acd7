"""How Reshape and Flatten wire what goes through them: axes that are split into several, or folded into one.

What an index of an axis holds is a block of the other side: channels before a Flatten a run of columns behind it, and a
head a run of the columns that a projection made. Where an axis splits into several, each of those could be the one that
shrinks: all are ways, tried one after another until one leads to something that can be taken out.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from worker.engine.structure.dimensions import Dimension, Element, Multiplied, dimensions_in
from worker.engine.structure.shape_numbers import Place, place_of
from worker.engine.structure.wiring import FIXED, Axes, Wiring

FOLDED = "it is folded together with another axis"
NO_SHAPE = "the shape that it is given next cannot be written down again"
# A segment as large as this is no layer that anybody prunes, and pairing its elements would take memory.
MOST_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Segment:
    """Consecutive axes of both sides over the same elements."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Way:
    """Axis `before` shrinks, and `after` with it. `parts` numbers for each index of both the block that it is of."""

    before: int
    after: int
    parts_before: np.ndarray
    parts_after: np.ndarray


def segments(before: tuple[int, ...], after: tuple[int, ...]) -> list[Segment]:
    """Both shapes cut into the shortest runs of axes that hold equally many elements."""
    found = []
    left = right = 0
    while left < len(before) and right < len(after):
        ends = [left + 1, right + 1]
        while (sizes := (math.prod(before[left : ends[0]]), math.prod(after[right : ends[1]])))[0] != sizes[1]:
            ends[0 if sizes[0] < sizes[1] else 1] += 1
        found.append(Segment(tuple(range(left, ends[0])), tuple(range(right, ends[1]))))
        left, right = ends
    return found


def reshape(node: ir.Node, wiring: Wiring) -> None:
    source = node.inputs[0]
    before, after = wiring.size(source) if source else None, wiring.size(node.outputs[0])
    if source is None or before is None or after is None or 0 in before or 0 in after:
        raise NotImplementedError
    axes = wiring.of(source)
    made: Axes = [None] * len(after)
    for segment in segments(before, after):
        labelled = [axis for axis in segment.before if axes[axis] is not None]
        if labelled:
            _through(node, wiring, segment, (before, after), made)
    wiring.axes[node.outputs[0]] = made
    if node.op_type == "Reshape":
        _freeze_named(node, wiring, made)
        if rewritten(node, wiring, made) is None:
            wiring.freeze(source, NO_SHAPE)


def _through(
    node: ir.Node, wiring: Wiring, segment: Segment, sizes: tuple[tuple[int, ...], tuple[int, ...]], made: Axes
) -> None:
    source = node.inputs[0]
    axes = wiring.of(source) if source is not None else []
    labelled = [axis for axis in segment.before if axes[axis] is not None]
    alive = [axis for axis in labelled if not wiring.atoms.frozen(_atoms(axes, axis)).all()]
    roots = {axis: wiring.atoms.roots(_atoms(axes, axis)) for axis in alive or labelled}
    ways = [] if _too_large(segment, sizes[0]) else _ways(segment, *sizes, roots)
    if len(ways) > 1:
        wiring.ways[node] = [_atoms(axes, way.before) for way in ways]
    number = wiring.choices.get(node, 0)
    chosen = ways[number] if number < len(ways) else None
    for axis in labelled:
        if chosen is None or axis != chosen.before:
            wiring.atoms.freeze(_atoms(axes, axis), FOLDED)
    if chosen is None:
        return
    atoms = _atoms(axes, chosen.before)
    _, first = np.unique(chosen.parts_before, return_index=True)
    wiring.atoms.unite(atoms, atoms[first][chosen.parts_before])
    made[chosen.after] = atoms[first][chosen.parts_after]


def _atoms(axes: Axes, axis: int) -> np.ndarray:
    atoms = axes[axis]
    if atoms is None:
        raise ValueError(f"axis {axis} has no atoms")
    return atoms


def _too_large(segment: Segment, size: tuple[int, ...]) -> bool:
    return math.prod(size[axis] for axis in segment.before) > MOST_ELEMENTS


def _ways(segment: Segment, before: tuple[int, ...], after: tuple[int, ...], roots: dict[int, np.ndarray]) -> list[Way]:
    """From the outer axes of both sides inwards; those that would tie everything together are none.

    `roots`: by axis that could shrink the sets of its atoms. Heads of several samples are tied already, and to tie all
    of a sample is then to tie all.
    """
    found = []
    for source, own in roots.items():
        left = _indices(segment.before, before, source)
        _, firsts, numbers = np.unique(own, return_index=True, return_inverse=True)
        like = firsts[numbers]
        for target in segment.after:
            if after[target] == 1:
                continue
            right = _indices(segment.after, after, target)
            pairs = np.unique(left * after[target] + right)
            first = np.concatenate([pairs // after[target], np.arange(before[source])])
            second = np.concatenate([pairs % after[target] + before[source], like])
            nodes = before[source] + after[target]
            links = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(nodes, nodes))
            count, parts = connected_components(links, directed=False)
            if count > 1:
                found.append(Way(source, target, parts[: before[source]], parts[before[source] :]))
    return found


def _indices(axes: tuple[int, ...], size: tuple[int, ...], axis: int) -> np.ndarray:
    """For each element of these axes, in order, its index along `axis`."""
    shape = [size[one] for one in axes]
    line = np.arange(size[axis]).reshape([-1 if one == axis else 1 for one in axes])
    return np.broadcast_to(line, shape).reshape(-1)


def rewritten(node: ir.Node, wiring: Wiring, made: Axes) -> dict[int, Place] | None:
    """By axis that may shrink and that the operand names by number: where another is written; None where none can be.

    Of computed shapes one number alone is put right.
    """
    operand = node.inputs[1]
    places: dict[int, Place] = {}
    for axis, atoms in enumerate(made):
        if atoms is None or wiring.atoms.frozen(atoms).all() or corrects_itself(node, wiring, axis, atoms):
            continue
        place = None if operand is None else place_of(operand, axis, atoms, wiring)
        if place is None:
            return None
        places[axis] = place
    several = len(places) > 1 and any(place.steps or place.factor is None for place in places.values())
    return None if several else places


def _freeze_named(node: ir.Node, wiring: Wiring, made: Axes) -> None:
    """An axis that stays may be as long as another that does not."""
    operand = node.inputs[1]
    elements = [] if operand is None else wiring.dimensions.elements(operand)
    for element, atoms in zip(elements, made, strict=False):
        for other in map(wiring.labelled, dimensions_in(element)):
            if atoms is None and other is not None:
                wiring.atoms.freeze(other, FIXED)


def corrects_itself(node: ir.Node, wiring: Wiring, axis: int, atoms: np.ndarray) -> bool:
    """Whether the operand's number for an axis follows what is taken out, without being written again."""
    operand = node.inputs[1]
    elements: list[Element] = [] if operand is None else wiring.dimensions.elements(operand)
    if axis >= len(elements):
        return False
    element = elements[axis]
    if element == -1:
        return True
    if element == 0 and node.inputs[0] is not None:
        element = Dimension(node.inputs[0], axis)
    if isinstance(element, Multiplied):
        return _follows(wiring, element, wiring.atoms.roots(atoms))
    if not isinstance(element, Dimension):
        return False
    other = wiring.labelled(element)
    return other is not None and np.array_equal(wiring.atoms.roots(other), wiring.atoms.roots(atoms))


def _follows(wiring: Wiring, element: Multiplied, roots: np.ndarray) -> bool:
    """Whether one factor shrinks, and the axis is made of what is left there, a whole number of times over."""
    shrinking = [atoms for one in dimensions_in(element) if (atoms := wiring.labelled(one)) is not None]
    if len(shrinking) != 1 or len(roots) % len(shrinking[0]):
        return False
    times = len(roots) // len(shrinking[0])
    return np.array_equal(np.sort(np.tile(wiring.atoms.roots(shrinking[0]), times)), np.sort(roots))
