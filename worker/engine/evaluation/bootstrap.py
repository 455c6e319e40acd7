"""Percentile bootstrap over samples (B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), and
one-sided bounds that are corrected for bias and skewness (BCa, chapter 14).

A statistic is a function of weights: weights of one give the estimate, counts of a resample a replicate. The same
resamples serve every statistic, so differences are paired. All are functions of sums over samples, so that of very many
samples groups can be drawn in their place, put together by chance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from statistics import NormalDist
from typing import Protocol

import numpy as np

from worker.engine.evaluation.metrics import drop

REPLICATES = 1000
# Of the replicates so many lie beyond a bound, at whatever confidence.
BEYOND = 10
# Samples, or groups of them, that are drawn for all replicates together: a few seconds.
DRAWS = 100_000_000
# Rows of F1, which are classes within samples, that are added up for all replicates together: a few seconds too. Where
# there are more, as few groups are drawn as still tell how samples scatter.
ROW_SUMS = 1_000_000_000
FEW_GROUPS = 1000
CHUNK_WEIGHTS = 4 << 20
# Replicates whose weights are read class by class: about as many as stay in a cache.
CLASS_WEIGHTS = 256
# The prediction of what answers no class.
NO_CLASS = -1


class Statistic(Protocol):
    """Something computed from all samples."""

    def __call__(self, weights: np.ndarray, /) -> np.ndarray:
        """Values `(B,)` for weights `(B, N)` float64."""
        ...

    def pooled(self, groups: np.ndarray, /) -> "Statistic":
        """The same of groups of samples, `groups` `(N,)` saying whose each is: a function of weights of those."""
        ...


@dataclass(frozen=True)
class Ratio:
    """Sum of `parts` `(N,)` over sum of `wholes` `(N,)`; NaN where that is 0."""

    parts: np.ndarray
    wholes: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        total = weights @ self.wholes
        return np.where(total > 0, weights @ self.parts / np.maximum(total, 1e-300), np.nan)

    def pooled(self, groups: np.ndarray) -> "Ratio":
        return Ratio(np.bincount(groups, self.parts), np.bincount(groups, self.wholes))


@dataclass(frozen=True)
class Mean:
    """Weighted mean of scores `(N,)`; samples whose score is NaN have none and do not count."""

    scores: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return self._ratio()(weights)

    def pooled(self, groups: np.ndarray) -> Ratio:
        return self._ratio().pooled(groups)

    def _ratio(self) -> Ratio:
        known = ~np.isnan(self.scores)
        return Ratio(np.where(known, self.scores, 0.0), known.astype(np.float64))


@dataclass(frozen=True)
class SqnrDb:
    """Signal to quantization noise ratio over all samples, dB: 10 log10(sum signal / sum noise).

    Samples whose noise is NaN have none and do not count.
    """

    signal: np.ndarray
    noise: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        signal, noise = self._powers()
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels: np.ndarray = 10 * np.log10((weights @ signal) / (weights @ noise))
        return decibels

    def pooled(self, groups: np.ndarray) -> "SqnrDb":
        signal, noise = self._powers()
        return SqnrDb(np.bincount(groups, signal), np.bincount(groups, noise))

    def _powers(self) -> np.ndarray:
        return np.where(np.isnan(self.noise), 0.0, [self.signal, self.noise])


@dataclass(frozen=True)
class MacroF1:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), over classes that occur in labels or predictions.

    Columns are `(M,)`, as `count_classes` has them; what is below 0 among predictions is no class.
    """

    owners: np.ndarray
    classes: np.ndarray
    hits: np.ndarray
    seen: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        step = min(CLASS_WEIGHTS, max(1, CHUNK_WEIGHTS // max(1, 2 * len(self._by_class))))
        return np.concatenate([self._some(weights[start : start + step]) for start in range(0, len(weights), step)])

    def pooled(self, groups: np.ndarray) -> "MacroF1":
        names, codes = np.unique(self.classes, return_inverse=True)
        rows, places = np.unique(groups[self.owners] * len(names) + codes, return_inverse=True)
        hits, seen = (np.bincount(places, counts, len(rows)) for counts in (self.hits, self.seen))
        owners, codes = np.divmod(rows, max(1, len(names)))
        return MacroF1(owners, names[codes], hits, seen)

    @cached_property
    def _by_class(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each class, in order, its rows: owners `(R,)`, and hits and seen `(2, R)` float64."""
        order = np.argsort(self.classes, kind="stable")
        names, starts = np.unique(self.classes[order], return_index=True)
        owners, counts = self.owners[order], np.stack([self.hits, self.seen]).astype(np.float64)[:, order]
        ends = pairwise([*starts, len(order)])
        return [(owners[i:j], counts[:, i:j]) for name, (i, j) in zip(names, ends, strict=True) if name >= 0]

    def _some(self, weights: np.ndarray) -> np.ndarray:
        by_owner = np.ascontiguousarray(weights.T)
        sums = np.empty((len(self._by_class), 2, len(weights)))
        for one, (owners, counts) in zip(sums, self._by_class, strict=True):
            np.matmul(counts, by_owner[owners], out=one)
        return np.array([_mean_f1(hits, seen) for hits, seen in np.ascontiguousarray(sums.T)])


def _mean_f1(hits: np.ndarray, seen: np.ndarray) -> float:
    present = seen > 0
    return float(np.mean(2 * hits[present] / seen[present])) if present.any() else float("nan")


def count_classes(labels: np.ndarray, predictions: np.ndarray, owners: np.ndarray) -> dict[str, np.ndarray]:
    """What `MacroF1` needs of elements `(N,)`, whose samples are `owners`: a row for each class in each sample.

    `owners` and `classes` say which; `hits` `(M,)` int32 is how many elements of the sample are of the class and
    predicted to be, `seen` `(M,)` int32 how many labels and predictions of it are that class: 2 TP + FP + FN.
    """
    names, codes = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    keys = np.tile(owners, 2) * len(names) + codes
    rows, seen = np.unique(keys, return_counts=True)
    truth, guess = np.split(keys, 2)
    right, counts = np.unique(truth[truth == guess], return_counts=True)
    hits = np.zeros(len(rows), np.int32)
    hits[np.searchsorted(rows, right)] = counts
    # Of no elements there is no class to divide by.
    sample, name = np.divmod(rows, max(1, len(names)))
    return {"owners": sample, "classes": names[name], "hits": hits, "seen": seen.astype(np.int32)}


@dataclass(frozen=True)
class Drop:
    """From one file to another in a metric, as a contract bounds it."""

    metric: str
    before: Statistic
    after: Statistic

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return drop(self.metric, self.before(weights), self.after(weights))

    def pooled(self, groups: np.ndarray) -> "Drop":
        return Drop(self.metric, self.before.pooled(groups), self.after.pooled(groups))


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


def estimate(statistics: Sequence[Statistic], samples: int, seed: int, confidence: float = 0.95) -> list[Estimate]:
    """The estimate and interval of every statistic of the same resamples, as many as the confidence takes."""
    whole = np.ones((1, samples))
    points = [float(statistic(whole)[0]) for statistic in statistics]
    count = max(REPLICATES, round(BEYOND / (1 - confidence)))
    # What is not finite has no interval either.
    finite = [number for number, point in enumerate(points) if np.isfinite(point)]
    parts = {id(part): part for number in finite for part in _parts(statistics[number])}
    groups = _group_count(parts.values(), samples, count)
    drawn = {key: _in_groups(part, samples, groups) for key, part in parts.items()}
    replicates: list[list[np.ndarray]] = [[] for _ in statistics]
    for weights in _resamples(groups, count, seed) if finite else ():
        values = {key: part(weights) for key, part in drawn.items()}
        for number in finite:
            replicates[number].append(_of_parts(statistics[number], values))
    return [
        _interval(point, np.concatenate(values)) if values else Estimate(None, None, None)
        for point, values in zip(points, replicates, strict=True)
    ]


def without_interval(statistic: Statistic, samples: int) -> Estimate:
    """The estimate alone."""
    value = float(statistic(np.ones((1, samples)))[0])
    return Estimate(value if np.isfinite(value) else None, None, None)


def skewness_of(statistic: Statistic, samples: int) -> float:
    """Of an estimate, by the jackknife: what it comes to without each sample, or each group where there are many.

    0 where no sample makes a difference, or there are too few to say.
    """
    groups = min(samples, REPLICATES)
    without = _in_groups(statistic, samples, groups)(1 - np.eye(groups))
    if not np.isfinite(without).all():
        return 0.0
    away = without.mean() - without
    largest = np.abs(away).max()
    if largest == 0:
        return 0.0
    away = away / largest  # cubes of what is tiny are 0
    return float(np.sum(away**3) / np.sum(away**2) ** 1.5)


def _parts(statistic: Statistic) -> tuple[Statistic, ...]:
    """What it is computed from: a drop from both files' metrics, which have estimates of their own as well."""
    return (statistic.before, statistic.after) if isinstance(statistic, Drop) else (statistic,)


def _of_parts(statistic: Statistic, values: Mapping[int, np.ndarray]) -> np.ndarray:
    found = [values[id(part)] for part in _parts(statistic)]
    return drop(statistic.metric, *found) if isinstance(statistic, Drop) else found[0]


def _group_count(parts: Iterable[Statistic], samples: int, count: int) -> int:
    """Of how many groups so many replicates are drawn in a few seconds; `samples` where each can be one."""
    rows = max((len(part.owners) for part in parts if isinstance(part, MacroF1)), default=0)
    return min(samples, DRAWS // count, FEW_GROUPS if rows * count > ROW_SUMS else samples)


def _in_groups(statistic: Statistic, samples: int, groups: int) -> Statistic:
    """Of so many groups, as large as each other but for one sample; as it is where that many samples there are."""
    if groups >= samples:
        return statistic
    return statistic.pooled(np.random.default_rng(0).permutation(samples) % groups)


def _resamples(samples: int, left: int, seed: int) -> Iterator[np.ndarray]:
    """Weights `(B, N)`, until there were `left`."""
    generator = np.random.default_rng(seed)
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
