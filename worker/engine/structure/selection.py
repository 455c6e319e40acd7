"""Which units go: by a share, or as many as a target of multiply-accumulates asks for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from onnx import ModelProto

from worker.engine.inspection.macs import count_nodes
from worker.engine.structure.groups import Group, Structure
from worker.engine.structure.importance import Scores

# Widths that kernels like: 60 channels take as long as 64. Of narrow layers a multiple of 16 would leave no choice.
MULTIPLES = ((64, 16), (32, 8), (16, 4), (8, 2))
# Of a cohort: without any, some axis would be of size 0, with which runtimes fail or crash.
LEAST_UNITS = 1


@dataclass(frozen=True)
class Choice:
    """By name of a group the numbers of the units that go, rising."""

    removed: dict[str, np.ndarray]

    def gone(self, structure: Structure) -> np.ndarray:
        """The sets of atoms of all of them."""
        found = [group.roots[self.removed[group.name]] for group in structure.groups if group.name in self.removed]
        return np.concatenate([np.zeros(0, np.int64), *found])

    @property
    def count(self) -> int:
        return sum(map(len, self.removed.values()))


@dataclass(frozen=True)
class Limits:
    """`most_share`: the largest share of a cohort that may go; `multiple` of what is left of it, None: by width."""

    most_share: float
    multiple: int | None = None

    def counts(self, group: Group, cohort: np.ndarray) -> range:
        """How many units of a cohort of `group` may go, rising: so many that a width is left that kernels like."""
        # What stays beside a group is told of the group alone.
        whole = len(cohort) + (group.frozen if len(cohort) == group.width else 0)
        multiple = self.multiple or next((step for width, step in MULTIPLES if whole >= width), 1)
        # Of neighbours that one unit holds, as a head does, each counts.
        step = multiple // math.gcd(multiple, group.run)
        most = min(int(len(cohort) * self.most_share), len(cohort) - LEAST_UNITS)
        return range(whole % step or step, most + 1, step)


def by_shares(structure: Structure, scores: Scores, shares: Mapping[str, float], limits: Limits) -> Choice:
    """By name of a group that share of its units; groups that are not named stay."""
    wanted = {group.name: round(shares.get(group.name, 0.0) * group.width) for group in structure.groups}
    return _lowest(structure, scores, wanted, limits)


def by_share_of_all(structure: Structure, scores: Scores, share: float, limits: Limits) -> Choice:
    """`share` of the units of all groups together."""
    every = np.sort(np.concatenate([np.zeros(0), *scores.values()]))
    threshold = every[min(len(every), max(1, round(share * len(every)))) - 1] if len(every) else 0.0
    return _below(structure, scores, threshold, limits)


def by_macs(structure: Structure, scores: Scores, macs: "Macs", share: float, limits: Limits) -> Choice:
    """So many that `share` of the multiply-accumulates is left at most, or as few as the limits allow.

    A unit is worth what it costs over what it saves; the threshold is found by halving.
    """
    full = macs.of(structure, Choice({}))
    saved = {group.name: _saved_by_unit(structure, group, macs, full) for group in structure.groups}
    worth = {name: values / max(saved[name], 1.0) for name, values in scores.items()}
    finite = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in worth.values())])
    ordered = np.unique(finite)
    low, high = 0, len(ordered) - 1
    while low < high:
        middle = (low + high) // 2
        choice = _below(structure, worth, ordered[middle], limits)
        if macs.of(structure, choice) <= share * full:
            high = middle
        else:
            low = middle + 1
    return _below(structure, worth, ordered[low], limits) if len(ordered) else Choice({})


@dataclass(frozen=True)
class Macs:
    """Counts multiply-accumulates of a call, by the sizes that are left, of the nodes of which they can be counted."""

    proto: ModelProto

    def of(self, structure: Structure, choice: Choice) -> int:
        """Of the model without these units."""
        wiring, gone = structure.wiring, choice.gone(structure)
        shapes: dict[str, list[int | str | None]] = {name: list(size) for name, size in wiring.sizes.items()}
        for value, axes in wiring.axes.items():
            size = wiring.size(value)
            if size is None or not value.name:
                continue
            left = [
                length if atoms is None else int((~np.isin(wiring.atoms.roots(atoms), gone)).sum())
                for length, atoms in zip(size, axes, strict=True)
            ]
            shapes[value.name] = list(left)
        return count_nodes(self.proto.graph.node, shapes).macs


def _saved_by_unit(structure: Structure, group: Group, macs: Macs, full: int) -> float:
    """What one unit of a group saves, from half of them, so that rounding does not show."""
    count = max(1, group.width // 2)
    return (full - macs.of(structure, Choice({group.name: np.arange(count)}))) / count


def _below(structure: Structure, scores: Mapping[str, np.ndarray], threshold: float, limits: Limits) -> Choice:
    wanted = {name: int((values <= threshold).sum()) for name, values in scores.items()}
    return _lowest(structure, scores, wanted, limits)


def _lowest(
    structure: Structure, scores: Mapping[str, np.ndarray], wanted: Mapping[str, int], limits: Limits
) -> Choice:
    removed = {}
    for group in structure.groups:
        gone = _lowest_of(group, structure.cohorts[group.name], scores[group.name], wanted[group.name], limits)
        if len(gone):
            removed[group.name] = np.sort(gone)
    return Choice(removed)


def _lowest_of(
    group: Group, cohorts: Sequence[np.ndarray], scores: np.ndarray, wanted: int, limits: Limits
) -> np.ndarray:
    """At most `wanted` units of a group, of every cohort those with the lowest scores; of more, the same and others."""
    batches = list[np.ndarray]()
    for cohort in cohorts:
        order = cohort[np.argsort(scores[cohort], kind="stable")]
        batches += [order[start:end] for start, end in pairwise([0, *limits.counts(group, cohort)])]
    # Batches go whole, and those of one cohort in order: each is as dear as the dearest of its units.
    order = np.argsort([scores[batch[-1]] for batch in batches], kind="stable")
    counts = np.cumsum([len(batches[number]) for number in order])
    return np.concatenate([np.zeros(0, np.int64), *(batches[number] for number in order[counts <= wanted])])
