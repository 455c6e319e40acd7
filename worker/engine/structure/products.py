"""How convolutions and matrix products wire their operands: out of one axis of a weight, into another."""

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import MATRIX_RANK, integer, number
from worker.engine.structure.wiring import FIXED, Slot, Wiring

NO_WEIGHT = "a product of two activations sums along it"
PARTS = "a filter of a grouped convolution sees it whole"


def convolution(node: ir.Node, wiring: Wiring) -> None:
    """X (N, C, ...), W (M, C / group, k, ...), B (M): C in, M out; by whole groups where there are several."""
    _convolution(node, wiring, out_axis=0)


def transposed_convolution(node: ir.Node, wiring: Wiring) -> None:
    """X (N, C, ...), W (C, M / group, k, ...), B (M)."""
    _convolution(node, wiring, out_axis=1)


def _convolution(node: ir.Node, wiring: Wiring, out_axis: int) -> None:
    source, kernel, bias = _operands(node)
    groups = integer(node, "group", 1)
    rank = wiring.rank(source)
    wiring.freeze(kernel, FIXED, list(range(2, rank)))
    wiring.freeze(source, FIXED, list(range(2, rank)))
    channels = wiring.of(source)[1]
    if groups == 1:
        made = _contracted(node, wiring, channels, kernel, 1 - out_axis, out_axis)
    elif out_axis == 0:
        made = _by_groups(wiring, channels, kernel, groups)
    else:
        wiring.freeze(source, PARTS, [1])
        wiring.freeze(kernel, PARTS)
        made = None
    if bias is not None:
        _tied_vector(wiring, made, bias)
    wiring.axes[node.outputs[0]] = [wiring.of(source)[0], made, *[None] * (rank - 2)]


def _by_groups(wiring: Wiring, channels: np.ndarray | None, kernel: ir.Value, groups: int) -> np.ndarray | None:
    """All of a group goes or stays: what it reads, its filters, what it makes."""
    filters = wiring.of(kernel)[0]
    wiring.freeze(kernel, PARTS, [1])
    if filters is None or channels is None:
        for atoms in (filters, channels):
            if atoms is not None:
                wiring.atoms.freeze(atoms, FIXED)
        return filters
    wiring.atoms.unite_rows(np.concatenate([filters.reshape(groups, -1), channels.reshape(groups, -1)], axis=1))
    return filters


def gemm(node: ir.Node, wiring: Wiring) -> None:
    """A (M, K) or its transpose, B (K, N) or its transpose, C that broadcasts to (M, N)."""
    left, right, bias = _operands(node)
    if integer(node, "transA", 0) or number(node, "alpha", 1.0) != 1.0 or number(node, "beta", 1.0) != 1.0:
        raise NotImplementedError
    inner = 1 if integer(node, "transB", 0) else 0
    made = _contracted(node, wiring, wiring.of(left)[1], right, inner, 1 - inner)
    if bias is not None:
        _tied_vector(wiring, made, bias)
        if wiring.rank(bias) == MATRIX_RANK:
            wiring.freeze(bias, FIXED, [0])
    wiring.axes[node.outputs[0]] = [wiring.of(left)[0], made]


def matmul(node: ir.Node, wiring: Wiring) -> None:
    """numpy.matmul of A (..., M, K) and B (..., K, N)."""
    left, right, _ = _operands(node)
    ranks = wiring.rank(left), wiring.rank(right)
    if min(ranks) < MATRIX_RANK:
        raise NotImplementedError
    last, inner = wiring.of(left)[-1], wiring.of(right)[-2]
    rows, columns = wiring.of(left)[-2], wiring.of(right)[-1]
    weight_right, weight_left = wiring.weight(right), wiring.weight(left)
    if weight_right is not None and ranks[1] == MATRIX_RANK and weight_left is None:
        made = [*wiring.of(left)[:-1], _contracted(node, wiring, last, right, 0, 1)]
    elif weight_left is not None and ranks[0] == MATRIX_RANK and weight_right is None:
        rows = _contracted(node, wiring, inner, left, 1, 0)
        made = [*wiring.of(right)[:-2], rows, columns]
    else:
        for atoms in (last, inner):
            if atoms is not None:
                wiring.atoms.freeze(atoms, NO_WEIGHT)
        made = [*_batches(left, right, wiring), rows, columns]
    wiring.axes[node.outputs[0]] = made


def _batches(left: ir.Value, right: ir.Value, wiring: Wiring) -> list[np.ndarray | None]:
    """The axes before the matrices, each tied to its like; those of the one with more axes lead."""
    shapes = [list(zip(wiring.of(one), wiring.size(one) or (), strict=True))[:-2] for one in (left, right)]
    rank = max(len(shape) for shape in shapes)
    return [wiring.tie([shape[back] for shape in shapes if len(shape) >= -back]) for back in range(-rank, 0)]


def _contracted(
    node: ir.Node, wiring: Wiring, read: np.ndarray | None, kernel: ir.Value, inner: int, outer: int
) -> np.ndarray | None:
    """Atoms along the output axis of a weight whose input axis is tied to what is read."""
    weight, axes = wiring.weight(kernel), wiring.of(kernel)
    summed, made = axes[inner], axes[outer]
    if weight is None:
        for atoms in (read, summed):
            if atoms is not None:
                wiring.atoms.freeze(atoms, NO_WEIGHT)
        return made
    if read is not None and summed is not None:
        wiring.atoms.unite(read, summed)
        wiring.consumers.append(Slot(node, weight, inner, summed))
    elif summed is not None:
        wiring.atoms.freeze(summed, FIXED)
    if made is not None:
        wiring.producers.append(Slot(node, weight, outer, made))
    return made


def _tied_vector(wiring: Wiring, made: np.ndarray | None, vector: ir.Value) -> None:
    """What is added may be no constant, and then nothing can be taken out of it."""
    size = (wiring.size(vector) or (1,))[-1]
    if size > 1:
        wiring.tie([(made, size), (wiring.of(vector)[-1], size)])


def _operands(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    first, second = node.inputs[0], node.inputs[1]
    if first is None or second is None:
        raise NotImplementedError
    return first, second, node.inputs[2] if len(node.inputs) > 2 else None
