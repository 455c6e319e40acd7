"""Percentile bootstrap over samples (B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), and
one-sided bounds that are corrected for bias and skewness (BCa, chapter 14).

A statistic is a function of weights: weights of one give the estimate, counts of a resample a replicate. The same
resamples serve every statistic, so differences are paired.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Protocol

import numpy as np

REPLICATES = 1000
FEWER_REPLICATES = 200
MANY_SAMPLES = 100_000
CHUNK_WEIGHTS = 4 << 20
# The prediction of what answers no class.
NO_CLASS = -1


class Statistic(Protocol):
    """Something computed from all samples."""

    def __call__(self, weights: np.ndarray, /) -> np.ndarray:
        """Values `(B,)` for weights `(B, N)` float64."""
        ...


@dataclass(frozen=True)
class Mean:
    """Weighted mean of scores `(N,)`; samples whose score is NaN have none and do not count."""

    scores: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        known = ~np.isnan(self.scores)
        total = weights[:, known].sum(axis=1)
        return np.where(total > 0, weights[:, known] @ self.scores[known] / np.maximum(total, 1e-300), np.nan)


@dataclass(frozen=True)
class SqnrDb:
    """Signal to quantization noise ratio over all samples, dB: 10 log10(sum signal / sum noise)."""

    signal: np.ndarray
    noise: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels: np.ndarray = 10 * np.log10((weights @ self.signal) / (weights @ self.noise))
        return decibels


@dataclass(frozen=True)
class MacroF1:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), over classes that occur in labels or predictions.

    `labels` and `predictions` are `(M,)`, what is below 0 among predictions no class; `owners` `(M,)` names the sample
    each belongs to.
    """

    labels: np.ndarray
    predictions: np.ndarray
    owners: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        names, codes = np.unique(np.concatenate([self.labels, self.predictions]), return_inverse=True)
        truth, guess = np.split(codes, 2)
        return np.array([self._one(row[self.owners], truth, guess, names >= 0) for row in weights])

    @staticmethod
    def _one(weights: np.ndarray, truth: np.ndarray, guess: np.ndarray, is_class: np.ndarray) -> float:
        count = len(is_class)
        hits = np.bincount(truth, weights * (truth == guess), count)
        seen = np.bincount(truth, weights, count) + np.bincount(guess, weights, count)
        present = is_class & (seen > 0)
        return float(np.mean(2 * hits[present] / seen[present])) if present.any() else float("nan")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None where not finite. `replicates` `(B,)` are the finite ones."""

    value: float | None
    low: float | None
    high: float | None
    replicates: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)

    def bound(self, share: float, skewness: float | None = None) -> float | None:
        """What this share of the replicates stays below: at 0.95 the upper end of a one-sided 95 % interval.

        With the `skewness` of the estimate (see `skewness_of`) the share is corrected. Where a few samples err more
        than all others, plain percentiles are exceeded about twice as often as they say.
        """
        if self.value is None or not len(self.replicates):
            return None
        if skewness is not None:
            share = self._corrected(share, self.value, skewness / 6)
        return float(np.quantile(self.replicates, share))

    def _corrected(self, share: float, value: float, acceleration: float) -> float:
        normal, count = NormalDist(), len(self.replicates)
        less = float(np.sum(self.replicates < value) + np.sum(self.replicates == value) / 2) / count
        bias = normal.inv_cdf(min(max(less, 1 / count), 1 - 1 / count))
        moved = bias + normal.inv_cdf(share)
        left = 1 - acceleration * moved
        return normal.cdf(bias + moved / left) if left > 0 else float(moved > 0)


def estimate(functions: list[Callable[[np.ndarray], np.ndarray]], samples: int, seed: int) -> list[Estimate]:
    """The estimate and interval of every function of the same resamples."""
    whole = np.ones((1, samples))
    points = [float(function(whole)[0]) for function in functions]
    # What is not finite has no interval either.
    finite = [number for number, point in enumerate(points) if np.isfinite(point)]
    replicates: list[list[np.ndarray]] = [[] for _ in functions]
    for weights in _resamples(samples, seed) if finite else ():
        for number in finite:
            replicates[number].append(functions[number](weights))
    return [
        _interval(point, np.concatenate(values)) if values else Estimate(None, None, None)
        for point, values in zip(points, replicates, strict=True)
    ]


def skewness_of(function: Callable[[np.ndarray], np.ndarray], samples: int) -> float:
    """Of an estimate, by the jackknife: what it comes to without each sample, or each group where there are many.

    0 where no sample makes a difference, or there are too few to say.
    """
    groups = min(samples, REPLICATES if samples <= MANY_SAMPLES else FEWER_REPLICATES)
    member = np.arange(samples) % groups
    rows = max(1, CHUNK_WEIGHTS // samples)
    parts = (np.arange(start, min(start + rows, groups)) for start in range(0, groups, rows))
    without = np.concatenate([function((member != part[:, None]).astype(np.float64)) for part in parts])
    if not np.isfinite(without).all():
        return 0.0
    away = without.mean() - without
    largest = np.abs(away).max()
    if largest == 0:
        return 0.0
    away = away / largest  # cubes of what is tiny are 0
    return float(np.sum(away**3) / np.sum(away**2) ** 1.5)


def _resamples(samples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    left = REPLICATES if samples <= MANY_SAMPLES else FEWER_REPLICATES
    while left:
        rows = min(left, max(1, CHUNK_WEIGHTS // samples))
        drawn = generator.integers(samples, size=(rows, samples))
        yield np.stack([np.bincount(row, minlength=samples) for row in drawn]).astype(np.float64)
        left -= rows


def _interval(point: float, values: np.ndarray) -> Estimate:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Estimate(None, None, None)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(point, float(low), float(high), finite)
