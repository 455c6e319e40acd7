"""Taking out one unit after another, each time the one that is missed least when all the others make up for it.

Optimal brain surgeon for whole units: with H the second moments of what a product is fed and S the terms of a unit,

    rho_S = sum_i W_iS [(H^-1)_SS]^-1 W_iS^T
    W -= W_S [(H^-1)_SS]^-1 (H^-1)_S:        H^-1 -= (H^-1)_:S [(H^-1)_SS]^-1 (H^-1)_S:

(B. Hassibi, D. Stork, Second order derivatives for network pruning, 1992; by structures: E. Kurtic et al., ZipLM,
https://arxiv.org/abs/2302.04089). A unit that two others resemble costs nothing until one of them is gone: that is why
it is done one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

# Of the mean diagonal of H, so that it can be inverted where inputs move together.
DAMPING = 0.01
# Terms that are gone are cut out of the matrices when they are so large a share of them.
SHRINK_SHARE = 0.1
GONE = -2
LEAST = float(np.finfo(np.float32).tiny)


@dataclass
class Reader:
    """A product that reads units: `rows` `(C, K)` float64, `second` `(K, K)`, `units` `(K,)`, -1 where none lies."""

    rows: np.ndarray
    second: np.ndarray
    units: np.ndarray


class _Surgery:
    """One reader while units go. `places[u]` `(s,)`: the terms of unit u among those that are left."""

    def __init__(self, reader: Reader, width: int) -> None:
        power = float(np.einsum("ck,ck->", reader.rows @ reader.second, reader.rows))
        damping = max(DAMPING * float(np.mean(np.diag(reader.second))), LEAST)
        self._weight = reader.rows.copy()
        self._inverse = _inverse(reader.second + np.eye(len(reader.second)) * damping)
        self._scale = 1 / max(power, LEAST)
        self._units = reader.units
        self._width = width
        self._find_places()

    def _find_places(self) -> None:
        order = np.argsort(self._units, kind="stable")
        starts = np.searchsorted(self._units[order], np.arange(self._width + 1))
        self.places = [order[starts[unit] : starts[unit + 1]] for unit in range(self._width)]

    def costs(self, units: np.ndarray) -> np.ndarray:
        """What is lost of the outputs, as a share of their power, by each of these units alone."""
        found = np.zeros(len(units))
        sizes = np.array([len(self.places[unit]) for unit in units])
        for size in np.unique(sizes[sizes > 0]):
            chosen = np.flatnonzero(sizes == size)
            places = np.stack([self.places[units[index]] for index in chosen])
            blocks = self._inverse[places[:, :, None], places[:, None, :]]
            weights = self._weight.T[places]
            # sum_i w_i B^-1 w_i^T is the trace of B^-1 (W^T W).
            found[chosen] = np.trace(np.linalg.solve(blocks, weights @ weights.transpose(0, 2, 1)), axis1=1, axis2=2)
        return found * self._scale

    def remove(self, unit: int) -> None:
        places = self.places[unit]
        if not len(places):
            return
        block = np.linalg.solve(self._inverse[np.ix_(places, places)], self._inverse[places])
        self._weight -= self._weight[:, places] @ block
        self._inverse = scipy.linalg.blas.dgemm(
            -1.0, self._inverse[:, places], block, beta=1.0, c=self._inverse, overwrite_c=True
        )
        self._units = self._units.copy()
        self._units[places] = GONE
        if (self._units == GONE).sum() > SHRINK_SHARE * len(self._units):
            self._shrink()

    def _shrink(self) -> None:
        """What is gone takes no more time."""
        left = np.flatnonzero(self._units != GONE)
        self._weight, self._units = self._weight[:, left], self._units[left]
        self._inverse = np.asfortranarray(self._inverse[np.ix_(left, left)])
        self._find_places()


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric positive matrix, in the order of Fortran, in which it is updated in place."""
    factor, failed = scipy.linalg.lapack.dpotrf(matrix, lower=False, clean=True)
    made, missing = (None, 1) if failed else scipy.linalg.lapack.dpotri(factor, lower=False)
    if made is None or missing:
        return np.asfortranarray(np.linalg.pinv(matrix, hermitian=True))
    return np.asfortranarray(np.triu(made) + np.triu(made, 1).T)


def removal_scores(readers: list[Reader], width: int, is_over: Callable[[], bool] = lambda: False) -> np.ndarray | None:
    """`(width,)` float64: by unit what its going costs at the point where it goes, never less than for those before.

    Costs of several readers are added. The unit that is left last costs more than any other. None where time `is_over`
    before all are gone: of 3,072 units each takes as long as a product of that many rows and columns.
    """
    surgeries = [_Surgery(reader, width) for reader in readers]
    left, scores, highest = np.arange(width), np.zeros(width), 0.0
    while len(left) > 1:
        if is_over():
            return None
        costs = np.sum([surgery.costs(left) for surgery in surgeries], axis=0)
        index = int(np.argmin(np.where(np.isfinite(costs), costs, np.inf)))
        highest = max(highest, float(costs[index])) if np.isfinite(costs[index]) else highest
        # Equal costs keep the order in which units went.
        highest = np.nextafter(highest, np.inf)
        unit = int(left[index])
        scores[unit] = highest
        for surgery in surgeries:
            surgery.remove(unit)
        left = np.delete(left, index)
    scores[left] = np.inf
    return scores
