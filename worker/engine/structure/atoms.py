"""Atoms: one position of one axis, tied to all those that can only go together with it."""

import numpy as np


class Atoms:
    """Disjoint sets of atoms, numbered from 0. A set may be frozen, for a reason, and then stays in the model."""

    def __init__(self) -> None:
        self._parents = np.zeros(1024, np.int64)
        self._count = 0
        self._reasons: dict[int, str] = {}

    def fresh(self, count: int) -> np.ndarray:
        """`count` new atoms `(count,)` int64, each a set of its own."""
        while self._count + count > len(self._parents):
            self._parents = np.concatenate([self._parents, np.zeros_like(self._parents)])
        made = np.arange(self._count, self._count + count)
        self._parents[made] = made
        self._count += count
        return made

    def roots(self, atoms: np.ndarray) -> np.ndarray:
        """The one atom that stands for the set of each, of the shape of `atoms`."""
        found: np.ndarray = self._parents[atoms]
        while not np.array_equal(above := self._parents[found], found):
            found = above
        self._parents[atoms] = found
        return found

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        """Make one set of the sets of `first[i]` and `second[i]`, for every i."""
        left, right = self.roots(first), self.roots(second)
        for one, other in zip(left[left != right].tolist(), right[left != right].tolist(), strict=True):
            upper, lower = int(self.roots(np.array([one]))[0]), int(self.roots(np.array([other]))[0])
            if upper == lower:
                continue
            self._parents[lower] = upper
            reason = self._reasons.pop(lower, None)
            if reason is not None:
                self._reasons.setdefault(upper, reason)

    def unite_rows(self, blocks: np.ndarray) -> None:
        """Make one set of the sets in each row of `blocks`, (rows, members)."""
        self.unite(np.broadcast_to(blocks[:, :1], blocks.shape).ravel(), blocks.ravel())

    def freeze(self, atoms: np.ndarray, reason: str) -> None:
        """Let these sets stay; the first reason is kept."""
        for root in np.unique(self.roots(atoms)).tolist():
            self._reasons.setdefault(root, reason)

    def reason(self, atom: int) -> str | None:
        """Why the set of an atom stays, where it does."""
        return self._reasons.get(int(self.roots(np.array([atom]))[0]))

    def frozen(self, atoms: np.ndarray) -> np.ndarray:
        """bool, of the shape of `atoms`."""
        return np.isin(self.roots(atoms), np.fromiter(self._reasons, np.int64, len(self._reasons)))
