"""The cheapest division of a graph into int8 and float: an exact minimum s-t cut.

Every unit costs its time in the form it gets, and every tensor that crosses from one form to the other costs a
conversion, once however many readers it has. Units in int8 are the source's side of the cut. L. R. Ford, D. R.
Fulkerson, Maximal flow through a network, Canadian Journal of Mathematics 8, 1956; solved by SciPy.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

# Times are cut in whole nanoseconds; this stands for never.
NEVER = 1 << 30
SOURCE, SINK = 0, 1


@dataclass
class Network:
    """Unit `k` costs `int8_ns[k]` or `float_ns[k]`; crossings are added by `tensor`."""

    int8_ns: list[int]
    float_ns: list[int]
    _edges: dict[tuple[int, int], int] = field(default_factory=dict)
    _size: int = 0

    def __post_init__(self) -> None:
        self._size = 2 + len(self.int8_ns)
        for index, (in_int8, in_float) in enumerate(zip(self.int8_ns, self.float_ns, strict=True)):
            self._edge(SOURCE, 2 + index, in_float)
            self._edge(2 + index, SINK, in_int8)

    def tensor(self, maker: int | None, readers: list[int], enter_ns: int, leave_ns: int, read_in_float: bool) -> None:
        """A tensor made by unit `maker` (None: made in float) and read by the units `readers`.

        It costs `enter_ns` where it is made in float and read in int8, `leave_ns` where made in int8 and read in float;
        `read_in_float` says that something which is no unit reads it too.
        """
        made = SINK if maker is None else 2 + maker
        wanted = self._node()
        for reader in readers:
            self._edge(2 + reader, wanted, NEVER)
        self._edge(wanted, made, enter_ns)
        left = self._node()
        self._edge(made, left, leave_ns)
        for reader in readers:
            self._edge(left, 2 + reader, NEVER)
        if read_in_float:
            self._edge(left, SINK, NEVER)

    def divide(self) -> "Division":
        """The cheapest division; of several that cost the same, the one with fewest units in int8."""
        rows, columns = zip(*self._edges, strict=True)
        capacity = csr_array(
            (np.array(list(self._edges.values()), np.int32), (rows, columns)), shape=(self._size, self._size)
        )
        found = maximum_flow(capacity, SOURCE, SINK)
        reached = _reached(capacity - found.flow)
        in_int8 = frozenset(index for index in range(len(self.int8_ns)) if 2 + index in reached)
        return Division(in_int8, int(found.flow_value))

    def _node(self) -> int:
        self._size += 1
        return self._size - 1

    def _edge(self, start: int, end: int, capacity: int) -> None:
        if start not in (SINK, end) and end != SOURCE and capacity > 0:
            self._edges[start, end] = min(self._edges.get((start, end), 0) + int(capacity), NEVER)


@dataclass(frozen=True)
class Division:
    """Units in int8, by their numbers, and what that costs with all conversions."""

    in_int8: frozenset[int]
    ns: int


def _reached(residual: csr_array) -> set[int]:
    """What can be reached from the source over edges that are not full."""
    seen, queue = {SOURCE}, deque([SOURCE])
    while queue:
        node = queue.popleft()
        start, end = residual.indptr[node], residual.indptr[node + 1]
        for neighbour, left in zip(residual.indices[start:end], residual.data[start:end], strict=True):
            if left > 0 and int(neighbour) not in seen:
                seen.add(int(neighbour))
                queue.append(int(neighbour))
    return seen
