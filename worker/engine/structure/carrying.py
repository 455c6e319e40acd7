"""How operators without weights of their own wire what goes through them."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import integer, operand
from worker.engine.structure.dimensions import Dimension, constant_integers
from worker.engine.structure.folding import folded_integers
from worker.engine.structure.wiring import FIXED, MIXED, Axes, Slot, Wiring

PICKED = "single positions of it are picked by number"
# Before it a Softmax ran over all axes from its own on.
SOFTMAX_BY_AXIS = 13


def _read(node: ir.Node, index: int = 0) -> ir.Value:
    value = operand(node, index)
    if value is None:
        raise NotImplementedError
    return value


def _set(wiring: Wiring, node: ir.Node, axes: Axes) -> None:
    for output in node.outputs:
        wiring.axes[output] = list(axes)


def _axes(node: ir.Node, index: int, rank: int) -> list[int] | None:
    """Axes by attribute or by input `index`; None where neither is there."""
    attribute = node.attributes.get("axes")
    numbers: Sequence[int] | None = None if attribute is None else list(attribute.as_ints())
    if numbers is None and index < len(node.inputs) and node.inputs[index] is not None:
        numbers = constant_integers(node.inputs[index])
        if numbers is None:
            raise NotImplementedError
    return None if numbers is None else [number % rank for number in numbers]


def unary(node: ir.Node, wiring: Wiring) -> None:
    """Position by position: Relu, Cast, Dropout, and Clip by numbers."""
    _set(wiring, node, wiring.of(_read(node)))


def elementwise(node: ir.Node, wiring: Wiring) -> None:
    """Of several operands, as numpy aligns them."""
    _set(wiring, node, wiring.broadcast([value for value in node.inputs if value is not None]))


def channelwise(node: ir.Node, wiring: Wiring) -> None:
    """BatchNormalization, InstanceNormalization: X (N, C, ...) and vectors (C)."""
    axes = list(wiring.of(_read(node)))
    count = (wiring.size(_read(node)) or ())[1]
    for value in node.inputs[1:]:
        if value is not None:
            wiring.tie([(axes[1], count), (wiring.of(value)[0], count)])
    if node.op_type == "InstanceNormalization":
        wiring.freeze(_read(node), MIXED, list(range(2, len(axes))))
    _set(wiring, node, axes)


def normalized(node: ir.Node, wiring: Wiring) -> None:
    """LayerNormalization, RMSNormalization: mean and variance run over the last axes, whose units all count."""
    source = _read(node)
    rank = wiring.rank(source)
    first = integer(node, "axis", -1) % rank
    wiring.freeze(source, MIXED, list(range(first, rank)))
    for value in node.inputs[1:]:
        wiring.freeze(value, MIXED)
    axes = list(wiring.of(source))
    wiring.axes[node.outputs[0]] = axes
    for output in node.outputs[1:]:
        wiring.axes[output] = [*axes[:first], *[None] * (rank - first)]


def along_axis(node: ir.Node, wiring: Wiring) -> None:
    """Softmax and its like: mixed along one axis."""
    source = _read(node)
    rank = wiring.rank(source)
    graph = node.graph
    by_axis = graph is None or graph.opset_imports.get("", SOFTMAX_BY_AXIS) >= SOFTMAX_BY_AXIS
    default = -1 if by_axis else 1
    axis = integer(node, "axis", default) % rank
    wiring.freeze(source, MIXED, [axis] if by_axis else list(range(axis, rank)))
    _set(wiring, node, wiring.of(source))


def cumulative(node: ir.Node, wiring: Wiring) -> None:
    """CumSum: the axis is an input."""
    source, numbers = _read(node), constant_integers(_read(node, 1))
    wiring.freeze(source, MIXED, None if numbers is None else [numbers[0] % wiring.rank(source)])
    _set(wiring, node, wiring.of(source))


def pool(node: ir.Node, wiring: Wiring) -> None:
    """X (N, C, ...): along space."""
    source = _read(node)
    axes = wiring.of(source)
    wiring.freeze(source, MIXED, list(range(2, len(axes))))
    _set(wiring, node, [*axes[:2], *[None] * (len(axes) - 2)])


def reduction(node: ir.Node, wiring: Wiring) -> None:
    """ReduceMean and its like, ArgMax."""
    source = _read(node)
    axes, rank = wiring.of(source), wiring.rank(source)
    if node.op_type in ("ArgMax", "ArgMin"):
        reduced = [integer(node, "axis", 0) % rank]
    else:
        named = _axes(node, 1, rank)
        if not named and integer(node, "noop_with_empty_axes", 0):
            return unary(node, wiring)
        reduced = named or list(range(rank))
    wiring.freeze(source, MIXED, reduced)
    kept: Axes = [None if axis in reduced else atoms for axis, atoms in enumerate(axes)]
    if not integer(node, "keepdims", 1):
        kept = [atoms for axis, atoms in enumerate(axes) if axis not in reduced]
    return _set(wiring, node, kept)


def transpose(node: ir.Node, wiring: Wiring) -> None:
    axes = wiring.of(_read(node))
    order = node.attributes.get("perm")
    moved = list(order.as_ints()) if order is not None else list(reversed(range(len(axes))))
    _set(wiring, node, [axes[axis] for axis in moved])


def squeeze(node: ir.Node, wiring: Wiring) -> None:
    source = _read(node)
    size, axes = wiring.size(source) or (), wiring.of(source)
    gone = _axes(node, 1, len(axes))
    if gone is None:
        gone = [axis for axis, length in enumerate(size) if length == 1]
    wiring.freeze(source, PICKED, gone)
    _set(wiring, node, [atoms for axis, atoms in enumerate(axes) if axis not in gone])


def unsqueeze(node: ir.Node, wiring: Wiring) -> None:
    axes = wiring.of(_read(node))
    attribute = node.attributes.get("axes")
    count = len(attribute.as_ints()) if attribute is not None else len(constant_integers(_read(node, 1)) or ())
    new = _axes(node, 1, len(axes) + count)
    if not new:
        raise NotImplementedError
    rest = iter(axes)
    _set(wiring, node, [None if axis in new else next(rest) for axis in range(len(axes) + count)])


def concat(node: ir.Node, wiring: Wiring) -> None:
    """Offsets along the axis, ties along all others."""
    values = [value for value in node.inputs if value is not None]
    known = [(wiring.of(value), wiring.size(value) or ()) for value in values]
    rank = len(known[0][0])
    axis = integer(node, "axis", 0) % rank
    made: Axes = []
    for index in range(rank):
        operands = [(axes[index], size[index]) for axes, size in known]
        if index != axis:
            made.append(wiring.tie(operands))
        elif all(atoms is None for atoms, _ in operands):
            made.append(None)
        else:
            made.append(np.concatenate([_or_fixed(wiring, atoms, size) for atoms, size in operands]))
    _set(wiring, node, made)


def _or_fixed(wiring: Wiring, atoms: np.ndarray | None, size: int) -> np.ndarray:
    if atoms is not None:
        return atoms
    made = wiring.atoms.fresh(size)
    wiring.atoms.freeze(made, FIXED)
    return made


def split(node: ir.Node, wiring: Wiring) -> None:
    source = _read(node)
    axes, rank = wiring.of(source), wiring.rank(source)
    axis = integer(node, "axis", 0) % rank
    start = 0
    for output in node.outputs:
        size = (wiring.size(output) or ())[axis]
        atoms = axes[axis]
        part = None if atoms is None else atoms[start : start + size]
        wiring.axes[output] = [part if index == axis else one for index, one in enumerate(axes)]
        start += size


def sliced(node: ir.Node, wiring: Wiring) -> None:
    """Constant bounds and steps of 1 along what has atoms; along other axes whatever it may be."""
    source = _read(node)
    axes = list(wiring.of(source))
    bounds = slice_bounds(node, wiring.size(source) or ())
    if bounds is None:
        wiring.freeze(source, PICKED)
        bounds = {}
    for axis, (start, end, step) in bounds.items():
        atoms = axes[axis]
        if atoms is not None and step != 1:
            wiring.atoms.freeze(atoms, PICKED)
        axes[axis] = None if atoms is None else atoms[start:end:step]
    result = wiring.size(node.outputs[0]) or ()
    _set(
        wiring,
        node,
        [atoms if atoms is None or len(atoms) == size else None for atoms, size in zip(axes, result, strict=True)],
    )


def slice_bounds(node: ir.Node, size: tuple[int, ...]) -> dict[int, tuple[int, int | None, int]] | None:
    """By axis start, end and step, within the axis; None where they are no constants."""
    given = given_bounds(node, len(size))
    if given is None:
        return None
    found = {}
    for axis, (start, end, step) in given.items():
        first, last, _ = slice(start, end, step).indices(size[axis])
        found[axis] = (first, last if last >= 0 else None, step)
    return found


def given_bounds(node: ir.Node, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """By axis start, end and step as a Slice states them, in its order; None where they are no constants."""
    if "starts" in node.attributes:
        starts, ends = ([int(n) for n in node.attributes[name].as_ints()] for name in ("starts", "ends"))
        given = node.attributes.get("axes")
        axes: list[int] | None = None if given is None else list(given.as_ints())
        steps: list[int] | None = None
    else:
        read = [constant_integers(value) for value in node.inputs[1:]]
        if len(read) < 2 or any(one is None for one, value in zip(read, node.inputs[1:], strict=True) if value):
            return None
        starts, ends = read[0] or [], read[1] or []
        axes, steps = (read[index] if len(read) > index else None for index in (2, 3))
    return {
        (axes[place] if axes else place) % rank: (start, end, steps[place] if steps else 1)
        for place, (start, end) in enumerate(zip(starts, ends, strict=True))
    }


def gather(node: ir.Node, wiring: Wiring) -> None:
    """The axis that is picked from stays; of a table of embeddings the columns are made here."""
    source, places = _read(node), _read(node, 1)
    axes, rank = wiring.of(source), wiring.rank(source)
    axis = integer(node, "axis", 0) % rank
    wiring.freeze(source, PICKED, [axis])
    table = wiring.weight(source)
    if table is not None and rank == 2 and axis == 0 and axes[1] is not None:
        wiring.producers.append(Slot(node, table, 1, axes[1]))
    new: Axes = [None] * len(wiring.size(places) or ())
    _set(wiring, node, [*axes[:axis], *new, *axes[axis + 1 :]])


def pad(node: ir.Node, wiring: Wiring) -> None:
    """What is put before an axis and taken off its end leaves it as long, and moves all that lies along it."""
    pads = _pads(node, wiring)
    axes = wiring.of(_read(node))
    moved = [axis for axis in range(len(axes)) if pads is None or pads.get(axis, (0, 0)) != (0, 0)]
    wiring.freeze(_read(node), MIXED, moved)
    _keep_sizes(node, wiring)


def _pads(node: ir.Node, wiring: Wiring) -> dict[int, tuple[int, int]] | None:
    """By axis what is put before it and behind it; None where that is not constant."""
    rank = wiring.rank(_read(node))
    attribute = node.attributes.get("pads")
    numbers = list(attribute.as_ints()) if attribute is not None else folded_integers(operand(node, 1), wiring.sizes)
    axes: list[int] | None = list(range(rank))
    if operand(node, 3) is not None:
        axes = folded_integers(operand(node, 3), wiring.sizes)
    if numbers is None or axes is None:
        return None
    return {
        axis % rank: (before, behind)
        for axis, before, behind in zip(axes, numbers[: len(axes)], numbers[len(axes) :], strict=True)
    }


def _keep_sizes(node: ir.Node, wiring: Wiring) -> None:
    """Along axes that stay as long as they were all stays where it was."""
    source = _read(node)
    axes, size, result = wiring.of(source), wiring.size(source) or (), wiring.size(node.outputs[0]) or ()
    grown = [axis for axis in range(len(axes)) if size[axis] != result[axis]]
    wiring.freeze(source, MIXED, grown)
    _set(wiring, node, [None if axis in grown else atoms for axis, atoms in enumerate(axes)])


def resize(node: ir.Node, wiring: Wiring) -> None:
    """By scales; sizes would hold numbers of channels as well, and stay only where none lies along an axis of atoms."""
    source = _read(node)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        sizes = wiring.dimensions.elements(node.inputs[3])
        for axis, atoms in enumerate(wiring.of(source)):
            if atoms is not None and axis < len(sizes) and sizes[axis] != Dimension(source, axis):
                wiring.atoms.freeze(atoms, FIXED)
    _keep_sizes(node, wiring)


def expand(node: ir.Node, wiring: Wiring) -> None:
    """What is not repeated passes; what is named by number stays."""
    source, wanted = _read(node), wiring.dimensions.elements(_read(node, 1))
    axes, size, result = wiring.of(source), wiring.size(source) or (), wiring.size(node.outputs[0]) or ()
    made: Axes = [None] * len(result)
    for back in range(-len(axes), 0):
        atoms = axes[back]
        if atoms is None or size[back] != result[back]:
            continue
        element = wanted[back] if -back <= len(wanted) else 1
        if element != 1 and not (isinstance(element, Dimension) and _lies_along(wiring, element, atoms)):
            wiring.atoms.freeze(atoms, FIXED)
        made[back] = atoms
    _set(wiring, node, made)


def _lies_along(wiring: Wiring, element: Dimension, atoms: np.ndarray) -> bool:
    other = wiring.labelled(element)
    return other is not None and np.array_equal(wiring.atoms.roots(other), wiring.atoms.roots(atoms))


def shape(node: ir.Node, wiring: Wiring) -> None:
    """What its numbers are used for is looked at when all is wired."""
    _set(wiring, node, [None])


def constant(node: ir.Node, wiring: Wiring) -> None:
    """Its axes get their atoms where it is read."""


UNARY = (
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
ELEMENTWISE = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
REDUCTIONS = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")

CARRIERS: dict[str, Callable[[ir.Node, Wiring], None]] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(POOLS, pool),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), along_axis),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), channelwise),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), normalized),
    "PRelu": elementwise,
    "CumSum": cumulative,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": sliced,
    "Gather": gather,
    "Pad": pad,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "Expand": expand,
    "Shape": shape,
    "Constant": constant,
}
