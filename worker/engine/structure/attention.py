"""How an Attention wires its operands: by heads, as attention that is spelled out is.

Heads of queries that share one of keys and values go together with it, so that as many share each that is left.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import integer, operand
from worker.engine.structure.products import NO_WEIGHT
from worker.engine.structure.wiring import FIXED, MIXED, Axes, Wiring

MASK, PAST = 3, (4, 5)
FLAT_RANK, RANK = 3, 4


def attention(node: ir.Node, wiring: Wiring) -> None:
    """Q (N, heads, L, E), K (N, kv heads, S, E), V (N, kv heads, S, F) -> (N, heads, L, F).

    Or all with the heads in the last axis, (N, L, heads x E), and the number of either as an attribute. The mask
    broadcasts to (N, heads, L, S).
    """
    operands = [operand(node, index) for index in range(MASK)]
    values = [value for value in operands if value is not None]
    ranks = {wiring.rank(value) for value in values}
    is_cached = any(operand(node, index) is not None for index in PAST) or any(one.name for one in node.outputs[1:])
    if len(values) < len(operands) or ranks not in ({FLAT_RANK}, {RANK}) or is_cached:
        raise NotImplementedError
    heads, shared = head_counts(node, wiring)
    if not heads or not shared or heads % shared:
        raise NotImplementedError
    axis = head_axis(wiring, values[0])
    _freeze_others(wiring, values, axis)
    groups = _groups(wiring, [wiring.of(value)[axis] for value in values], shared)
    _mask(wiring, operand(node, MASK), groups, heads)
    made: Axes = [None] * ranks.pop()
    if axis == 1:
        made[-1] = wiring.of(values[2])[-1]
    if groups is not None:
        width = 1 if axis == 1 else (wiring.size(values[2]) or ())[-1] // shared
        made[axis] = np.repeat(groups, heads // shared * width)
    wiring.axes[node.outputs[0]] = made


def head_axis(wiring: Wiring, value: ir.Value) -> int:
    """The axis of queries, keys or values that holds the heads."""
    return 1 if wiring.rank(value) == RANK else 2


def head_counts(node: ir.Node, wiring: Wiring) -> tuple[int, int]:
    """How many heads of queries, and of keys and values; 0 where the node lacks the attribute that would tell."""
    query, key = operand(node, 0), operand(node, 1)
    sizes = [(wiring.size(value) or ()) if value is not None else () for value in (query, key)]
    if all(len(size) == RANK for size in sizes):
        return sizes[0][1], sizes[1][1]
    return integer(node, "q_num_heads", 0), integer(node, "kv_num_heads", 0)


def _freeze_others(wiring: Wiring, values: list[ir.Value], axis: int) -> None:
    """All but the heads stays, and the width of a head of values."""
    for value in values:
        wiring.freeze(value, FIXED, [0])
        wiring.freeze(value, MIXED, [3 - axis])
    if axis == 1:
        for value in values[:2]:
            wiring.freeze(value, NO_WEIGHT, [RANK - 1])


def _groups(wiring: Wiring, along: list[np.ndarray | None], shared: int) -> np.ndarray | None:
    """`(shared,)`: one atom for each head of keys, tied to its values and to the queries that share it."""
    alive = [atoms for atoms in along if atoms is not None]
    if len(alive) < len(along):
        for atoms in alive:
            wiring.atoms.freeze(atoms, FIXED)
        return None
    groups = alive[1].reshape(shared, -1)[:, :1]
    wiring.atoms.unite_rows(np.concatenate([groups, *(atoms.reshape(shared, -1) for atoms in alive)], axis=1))
    return groups[:, 0]


def _mask(wiring: Wiring, mask: ir.Value | None, groups: np.ndarray | None, heads: int) -> None:
    if mask is None:
        return
    place = wiring.rank(mask) - FLAT_RANK
    wiring.freeze(mask, MIXED, [axis for axis in range(wiring.rank(mask)) if axis != place])
    if place >= 0:
        by_head = None if groups is None else np.repeat(groups, heads // len(groups))
        wiring.tie([(by_head, heads), (wiring.of(mask)[place], (wiring.size(mask) or ())[place])])
