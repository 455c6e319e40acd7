"""Theta: the magnitude below which weights become zero.

Magnitude pruning as in Han et al., Learning both Weights and Connections for Efficient Neural Networks
(https://arxiv.org/abs/1506.02626).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SLAB_ELEMENTS = 1 << 22
HALF_BITS = 16


@dataclass(frozen=True)
class Cut:
    """Weights with |w| < `theta` go, and of those with |w| = `theta` the first `ties` by position."""

    theta: float
    ties: int = 0


def cut_at_percentile(weights: Sequence[np.ndarray], percentile: float) -> Cut:
    """Theta as `numpy.percentile` finds it with the method `higher`, over the magnitudes of all `weights`."""
    count = sum(one.size for one in weights)
    return Cut(magnitude_at(weights, math.ceil((count - 1) * (percentile / 100))))


def cut_to_sparsity(weights: Sequence[np.ndarray], sparsity: float) -> Cut:
    """The cut that leaves this share of all `weights` zero, to the nearest weight; one at least stays."""
    count = sum(one.size for one in weights)
    gone = min(round(sparsity * count), count - 1)
    theta = magnitude_at(weights, gone)
    below = sum(int((np.abs(slab) < theta).sum()) for slab in _slabs(weights))
    return Cut(theta, gone - below)


def magnitude_at(weights: Sequence[np.ndarray], rank: int) -> float:
    """The magnitude that stands at `rank`, from 0, when all float32 `weights` are sorted by it; NaN comes last.

    Without a sorted copy of the model: bits of floats without a sign are in the order of their values, so two
    histograms, over the upper and the lower half of the bits, find it exactly.
    """
    upper, before = _bin_of(_counts(bits >> HALF_BITS for bits in _bits(weights)), rank)
    within = (bits[bits >> HALF_BITS == upper] & ((1 << HALF_BITS) - 1) for bits in _bits(weights))
    lower, _ = _bin_of(_counts(within), rank - before)
    return float(np.array(upper << HALF_BITS | lower, np.uint32).view(np.float32))


def below_cut(values: np.ndarray, cut: Cut) -> np.ndarray:
    """Bool of the shape of `values`: what the cut takes, if these are the first weights that it meets."""
    magnitudes = np.abs(values)
    taken: np.ndarray = magnitudes < np.float32(cut.theta)
    if cut.ties:
        equal = np.flatnonzero(magnitudes == np.float32(cut.theta))
        taken.flat[equal[: cut.ties]] = True
    return taken


def after(values: np.ndarray, cut: Cut) -> Cut:
    """The cut as the weights behind `values` meet it."""
    equal = int((np.abs(values) == np.float32(cut.theta)).sum()) if cut.ties else 0
    return Cut(cut.theta, max(0, cut.ties - equal))


def _slabs(weights: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for one in weights:
        flat = np.ascontiguousarray(one).reshape(-1)
        for start in range(0, flat.size, SLAB_ELEMENTS):
            yield flat[start : start + SLAB_ELEMENTS]


def _bits(weights: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    return (np.abs(slab).view(np.uint32) for slab in _slabs(weights))


def _counts(halves: Iterator[np.ndarray]) -> np.ndarray:
    counts = np.zeros(1 << HALF_BITS, np.int64)
    for half in halves:
        counts += np.bincount(half, minlength=counts.size)
    return counts


def _bin_of(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds `rank`, and how many stand in the bins before it."""
    sums = np.cumsum(counts)
    index = int(np.searchsorted(sums, rank, side="right"))
    return index, int(sums[index] - counts[index])
