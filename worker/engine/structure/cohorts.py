"""Cohorts of a group: its units that lie along the same axes, as those of one half of a Split do.

Each is as wide as some tensor, or a part of one: a group that is left with a width that kernels like may be left with
none at all in one of them.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from worker.engine.structure.wiring import Wiring


def find_cohorts(wiring: Wiring, groups: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Of groups, given by the sets of atoms of their units `(width,)`, the numbers of the units of each cohort, rising.

    Every unit is of one cohort. They are in the order of their first units, and most groups have one alone.
    """
    every = np.concatenate([np.zeros(0, np.int64), *groups])
    labels = np.concatenate([np.zeros(0, np.int64), *(np.full(len(one), number) for number, one in enumerate(groups))])
    for lying in _axes(wiring):
        here = np.intersect1d(every, lying, assume_unique=True, return_indices=True)[1]
        # Those of a cohort that do not lie here keep its label.
        labels[here] = labels.max(initial=0) + 1 + np.unique(labels[here], return_inverse=True)[1]
    ends = np.cumsum([len(roots) for roots in groups], dtype=np.int64)
    return [_alike(labels[end - len(roots) : end]) for roots, end in zip(groups, ends, strict=True)]


def _axes(wiring: Wiring) -> Iterable[np.ndarray]:
    """The sets of atoms along every axis of every value; axes with the same sets once."""
    found: dict[bytes, np.ndarray] = {}
    for axes in wiring.axes.values():
        for atoms in axes:
            if atoms is not None:
                lying = np.unique(wiring.atoms.roots(atoms))
                found[lying.tobytes()] = lying
    return found.values()


def _alike(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in dict.fromkeys(labels.tolist())]
