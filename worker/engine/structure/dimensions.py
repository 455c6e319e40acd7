"""Where the numbers in a shape come from: constants, or the size of an axis of some tensor."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import constant_tensor, integer, is_operator
from worker.engine.structure.sizes import Sizes


@dataclass(frozen=True)
class Dimension:
    """The size of one axis of a tensor."""

    value: ir.Value
    axis: int


@dataclass(frozen=True)
class Multiplied:
    """The product of several numbers of shapes."""

    factors: tuple[int | Dimension, ...]


Element = int | Dimension | Multiplied | None
"""One number of a shape; None: computed otherwise."""


def dimensions_in(element: Element) -> list[Dimension]:
    """The sizes that a number is made of."""
    return [one for one in _factors(element) if isinstance(one, Dimension)]


def whole_factors(element: Element) -> list[int]:
    """The constants above 0 that a number is the product of, with sizes or by itself."""
    return [one for one in _factors(element) if isinstance(one, int) and one > 0]


def _factors(element: Element) -> tuple[int | Dimension, ...]:
    if element is None:
        return ()
    return element.factors if isinstance(element, Multiplied) else (element,)


def constant_integers(value: ir.Value | None) -> list[int] | None:
    """The numbers of a constant of whole numbers, whatever its shape; None where it is none."""
    tensor = None if value is None or value.is_graph_input() else constant_tensor(value)
    if tensor is None or not np.issubdtype(tensor.numpy().dtype, np.integer):
        return None
    return [int(number) for number in tensor.numpy().reshape(-1)]


class Dimensions:
    """Answers by value, remembered: graphs ask for the same shape again and again."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._known: dict[ir.Value, list[Element]] = {}

    def elements(self, value: ir.Value) -> list[Element]:
        """The numbers of a vector or scalar of whole numbers; none of what has more axes, which is no shape."""
        if value not in self._known:
            self._known[value] = self._traced(value)
        return self._known[value]

    def _unknown(self, value: ir.Value) -> list[Element]:
        return [None] * math.prod(self._sizes.get(value.name or "", ()))

    def _traced(self, value: ir.Value) -> list[Element]:
        size = self._sizes.get(value.name or "")
        if size is not None and len(size) > 1:
            return []
        numbers = constant_integers(value)
        if numbers is not None:
            return list(numbers)
        node = value.producer()
        if node is None or not is_operator(node, *TRACED):
            return self._unknown(value)
        found = TRACED[node.op_type](node, self)
        if found is None or (size is not None and len(found) != math.prod(size)):
            return self._unknown(value)
        return found

    def shape_of(self, node: ir.Node) -> list[Element] | None:
        source = node.inputs[0]
        if source is None or source.name not in self._sizes:
            return None
        rank = len(self._sizes[source.name])
        every: list[Element] = [Dimension(source, axis) for axis in range(rank)]
        return every[slice(integer(node, "start", 0), integer(node, "end", rank))]

    def same(self, node: ir.Node) -> list[Element] | None:
        return None if node.inputs[0] is None else self.elements(node.inputs[0])

    def joined(self, node: ir.Node) -> list[Element] | None:
        return [element for value in node.inputs if value is not None for element in self.elements(value)]

    def gathered(self, node: ir.Node) -> list[Element] | None:
        places = constant_integers(node.inputs[1])
        given = self.same(node)
        if places is None or given is None or any(not -len(given) <= place < len(given) for place in places):
            return None
        return [given[place] for place in places]

    def multiplied(self, node: ir.Node) -> list[Element] | None:
        """Of whole numbers, one by one; a single one with each of the others."""
        both = [self.elements(value) for value in node.inputs if value is not None]
        count = max(map(len, both))
        if any(len(one) not in (1, count) for one in both) or any(None in one for one in both):
            return None
        left, right = (one * count if len(one) == 1 else one for one in both)
        return [_product(*pair) for pair in zip(left, right, strict=True)]

    def sliced(self, node: ir.Node) -> list[Element] | None:
        given, bounds = self.same(node), [constant_integers(value) for value in node.inputs[1:3]]
        if given is None or len(bounds) < 2 or any(bound is None or len(bound) != 1 for bound in bounds):
            return None
        step = constant_integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
        if step != [1]:
            return None
        return given[slice((bounds[0] or [0])[0], (bounds[1] or [0])[0])]


def _product(left: Element, right: Element) -> Element:
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    return Multiplied((*_factors(left), *_factors(right)))


TRACED: dict[str, Callable[[ir.Node, Dimensions], list[Element] | None]] = {
    "Shape": lambda node, known: known.shape_of(node),
    "Identity": lambda node, known: known.same(node),
    "Cast": lambda node, known: known.same(node),
    "Unsqueeze": lambda node, known: known.same(node),
    "Squeeze": lambda node, known: known.same(node),
    "Reshape": lambda node, known: known.same(node),
    "Concat": lambda node, known: known.joined(node),
    "Gather": lambda node, known: known.gathered(node),
    "Slice": lambda node, known: known.sliced(node),
    "Mul": lambda node, known: known.multiplied(node),
}
