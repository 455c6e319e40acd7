"""Where the numbers of a Reshape's shape come from, and what must stand there once an axis is shorter.

One constant is told another number: the shape itself, a part of it, or the heads that a batch is multiplied by. What is
computed of the sizes of a call goes on being computed of them, so that what is written holds for calls of all sizes.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import is_operator
from worker.engine.structure.dimensions import constant_integers, dimensions_in, whole_factors
from worker.engine.structure.wiring import Wiring

OPEN = -1
UNCHANGED = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Place:
    """Number `index` of `value`, which one number of a shape is made of."""

    steps: list[tuple[ir.Node, int]]
    """The nodes between, from the shape on, each with the operand that leads there."""
    value: ir.Value
    index: int
    factor: int | None
    """What stands there; None: the number is computed, and is left open instead."""

    def number(self, before: int, after: int) -> int:
        """What has to stand there where an axis of `before` positions has `after` left."""
        return OPEN if self.factor is None else self.factor * after // before


def place_of(shape: ir.Value, axis: int, atoms: np.ndarray, wiring: Wiring) -> Place | None:
    """Where to say how much of `axis` is left, along which `atoms` lie; None where no constant can."""
    elements = wiring.dimensions.elements(shape)
    if axis >= len(elements):
        return None
    element = elements[axis]
    for factor in whole_factors(element):
        if any(wiring.labelled(one) is not None for one in dimensions_in(element)):
            break
        # The other factors are sizes of a call: each unit must lie there that often.
        times, rest = divmod(len(atoms), factor)
        counts = np.unique(wiring.atoms.roots(atoms), return_counts=True)[1]
        if not rest and not (counts % times).any():
            found = _place(shape, axis, factor, wiring)
            if found is not None:
                return found
    if OPEN in elements:
        return None
    return _place(shape, axis, None, wiring) or (None if None in elements else Place([], shape, axis, None))


def _place(value: ir.Value, index: int, factor: int | None, wiring: Wiring) -> Place | None:
    steps = list[tuple[ir.Node, int]]()
    while True:
        numbers = constant_integers(value)
        alone = factor is None and len(wiring.dimensions.elements(value)) == 1
        if alone or numbers is not None:
            stands = factor is None or (numbers is not None and numbers[index] == factor)
            return Place(steps, value, index, factor) if stands else None
        node = value.producer()
        following = None if node is None else _operand(node, index, factor, wiring)
        if node is None or following is None:
            return None
        position, index = following
        read = node.inputs[position]
        if read is None:
            return None
        steps.append((node, position))
        value = read


def _operand(node: ir.Node, index: int, factor: int | None, wiring: Wiring) -> tuple[int, int] | None:
    """Which operand, and which number of it, number `index` of what a node makes has the factor from."""
    if is_operator(node, *UNCHANGED):
        return 0, index
    read = [[] if value is None else wiring.dimensions.elements(value) for value in node.inputs]
    if is_operator(node, "Concat"):
        for position, elements in enumerate(read):
            if index < len(elements):
                return position, index
            index -= len(elements)
    if is_operator(node, "Mul"):
        for position, elements in enumerate(read):
            own = index if len(elements) > 1 else 0
            if factor in whole_factors(elements[own]):
                return position, own
    return None
