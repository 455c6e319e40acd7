"""Scores of single samples.

Outputs come as `(N, ...)`, one row a sample. Scores are `(N,)` float64, higher is better except for `mse` and `mae`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from app import errors
from worker.engine.faults import UserFault

# What counts as the same element where an output is no row of class scores: a share of the row's root mean square.
TOLERANCE = 0.05
SCORES_RANK, IMAGE_RANK = 2, 4
# From this share of samples with the same top class on, that they keep it says nearly nothing of them: a contract may
# well allow for the others. What a sample has to keep besides, then, is what passes have for the least, dB.
NEARLY_ALL, LEAST_DB = 0.95, 10.0
# Kinds of arrays: text as ONNX Runtime returns it; and what is the same or is not, numbers of classes, say, or a mask.
TEXT = "O"
EXACT = "iub" + TEXT
SMALLER_IS_BETTER = frozenset({"mse", "mae"})
CLASSIFICATION = frozenset({"top1", "top5", "accuracy", "f1"})


class MetricMismatch(UserFault):
    code, title = errors.MetricMismatch.code, errors.MetricMismatch.title


def looks_like_scores(output: np.ndarray) -> bool:
    """Float `(N, C)` with at least two columns: what a classifier returns, and what its top class can be taken of."""
    return bool(output.dtype.kind == "f" and output.ndim == SCORES_RANK and output.shape[1] > 1)


def agreement(original: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Per sample: for class scores, 1 where both have the same top class; else the share of elements that agree.

    Elements of floats agree within 5 % of the root mean square of the original's row; others where they are equal. NaN
    agrees with NaN, an infinity with the same infinity. Of another shape, as of boxes that were found, none agree.
    """
    if original.shape != candidate.shape:
        return np.zeros(len(original))
    if looks_like_scores(original):
        same: np.ndarray = np.argmax(original, axis=1) == np.argmax(candidate, axis=1)
        return np.asarray(same & (np.isnan(original).any(axis=1) == np.isnan(candidate).any(axis=1)), np.float64)
    left, right = _rows(original), _rows(candidate)
    if original.dtype.kind != "f":
        return _share(left == right)
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.where(np.isfinite(left), left, 0.0)
    width = TOLERANCE * np.sqrt(np.mean(finite**2, axis=1, keepdims=True)) if left.shape[1] else 0.0
    with np.errstate(invalid="ignore"):
        return _share((np.abs(left - right) <= width) | (left == right) | (np.isnan(left) & np.isnan(right)))


def is_one_class(tops: np.ndarray) -> bool:
    """Whether the top class, `(N,)`, is the same in nearly all samples, as of many outputs that hold no scores."""
    counts = np.unique(tops, return_counts=True)[1]
    return bool(counts.max(initial=0) >= NEARLY_ALL * len(tops))


def keeps_enough(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Per sample, of what `signal_and_noise` returns: whether it keeps 10 dB."""
    return np.asarray(noise <= signal * 10 ** (-LEAST_DB / 10))


def cosine(original: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Cosine of the angle between both rows, over elements finite in both; 1 where both rows are zero, and 0 where they
    are of another shape.
    """
    if original.shape != candidate.shape:
        return np.zeros(len(original))
    left, right = _finite_pair(original, candidate)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = (np.linalg.norm(left, axis=1) == 0) & (np.linalg.norm(right, axis=1) == 0)
    products = np.sum(left * right, axis=1)
    return np.where(both_zero, 1.0, products / np.where(norms == 0, 1.0, norms))


def signal_and_noise(original: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per sample: sum of squares of the original, and of the difference, over elements finite in both.

    Of another shape no elements correspond: the difference is all of both.
    """
    if original.shape != candidate.shape:
        signal = _power(original)
        return signal, signal + _power(candidate)
    left, right = _finite_pair(original, candidate)
    return np.sum(left**2, axis=1), np.sum((left - right) ** 2, axis=1)


def broken_samples(original: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Per sample: whether the candidate is NaN or infinite somewhere where the original is not; of another shape, where
    the original is so nowhere.
    """
    if original.dtype.kind != "f" or candidate.dtype.kind != "f":
        return np.zeros(len(original), bool)
    finite, still_finite = np.isfinite(_rows(original)), np.isfinite(_rows(candidate))
    if original.shape != candidate.shape:
        return np.asarray(finite.all(axis=1) & ~still_finite.all(axis=1))
    return np.asarray((finite & ~still_finite).any(axis=1))


def class_axis(output: Sequence[int], labels: Sequence[int]) -> int | None:
    """Where an output of this shape holds class scores for labels of this shape; None where it does not.

    The output is `labels + (C,)` or, as in segmentation, `(N, C) + labels[1:]`; where it could be either, as
    `scores_axis` says.
    """
    likely = scores_axis(len(output))
    for axis in (likely, len(output) - 1, 1):
        if len(output) > 1 and output[axis] > 1 and [*output[:axis], *output[axis + 1 :]] == [*labels]:
            return axis
    return None


def class_place(output: Sequence[int], labels: Sequence[int]) -> tuple[int, bool] | None:
    """As `class_axis`, and whether the labels have an axis of one in that place."""
    axis = class_axis(output, labels)
    if axis is not None:
        return axis, False
    for place in (len(output) - 1, 1):
        if len(output) > 1 and output[place] > 1 and [*output[:place], 1, *output[place + 1 :]] == [*labels]:
            return place, True
    return None


def scores_axis(rank: int) -> int:
    """Where an output of this many axes holds scores of classes, if it does: rows and sequences (N, L, C) on the last
    axis, images (N, C, H, W) on the second.
    """
    return 1 if rank >= IMAGE_RANK else rank - 1


def classes(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The predicted class for every label, of their shape: the top score, or the output itself where it holds class
    numbers.

    Raises:
        MetricMismatch: it is neither (see `class_place`).

    """
    if output.dtype.kind in "iub" and output.size == labels.size:
        return output.reshape(labels.shape)
    place = class_place(output.shape, labels.shape)
    if place is not None:
        axis, kept = place
        return np.asarray(np.argmax(output, axis=axis, keepdims=kept))
    raise MetricMismatch(
        f"An output of shape {list(output.shape)} holds no class scores for labels of shape {list(labels.shape)}.",
        "Choose another output or label array in `metric`, or a metric for numbers: mse, mae.",
    )


def top_k(output: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Per sample: the share of its labels that are among the `k` highest scores. Negative labels are not counted.

    Raises:
        MetricMismatch: the output holds no class scores for these labels.

    """
    known = labels >= 0
    if k == 1:
        return _masked_mean(classes(output, labels) == labels, known)
    numbers = numbers_along_last(output, labels)
    if numbers is None:
        raise MetricMismatch(
            f"top{k} needs class scores on the last axis; the output is {list(output.shape)}, the labels are "
            f"{list(labels.shape)}.",
            "Choose top1 or another output.",
        )
    k = min(k, output.shape[-1])
    best = np.argpartition(-output, k - 1, axis=-1)[..., :k]
    return _masked_mean((best == numbers[..., None]).any(axis=-1), known.reshape(numbers.shape))


def numbers_along_last(output: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The labels of scores that lie on the last axis, without an axis of one there; None where they are of others."""
    if labels.ndim == output.ndim and labels.shape[-1] == 1 < output.shape[-1]:
        labels = labels[..., 0]
    return labels if output.ndim == labels.ndim + 1 and output.shape[:-1] == labels.shape else None


def squared_error(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean squared error of each sample."""
    return _element_error(output, labels, np.square)


def absolute_error(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean absolute error of each sample."""
    return _element_error(output, labels, np.abs)


def drop(name: str, original: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """What a contract bounds, elementwise over resamples: how much worse the candidate is.

    `mse`, `mae`: growth as a share of the original's. `sqnr_db`: power of the noise as a share of the signal's (the
    original has none). Others: the difference.
    """
    if name in SMALLER_IS_BETTER:
        growth = candidate - original
        return np.where(growth == 0, 0.0, growth / np.where(original == 0, np.finfo(np.float64).tiny, original))
    if name == "sqnr_db":
        return np.asarray(10 ** (-candidate / 10))
    return np.asarray(original - candidate)


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1)


def _share(hits: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.mean(hits, axis=1) if hits.shape[1] else np.ones(len(hits))
    return shares


def _power(array: np.ndarray) -> np.ndarray:
    """Sum of squares of each row, over its finite elements."""
    rows = _rows(array).astype(np.float64)
    return np.asarray(np.sum(np.where(np.isfinite(rows), rows, 0.0) ** 2, axis=1))


def _finite_pair(original: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = _rows(original).astype(np.float64), _rows(candidate).astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    return np.where(finite, left, 0.0), np.where(finite, right, 0.0)


def _masked_mean(hits: np.ndarray, known: np.ndarray) -> np.ndarray:
    """NaN for a sample without a known label: it has no score."""
    hits, known = _rows(hits & known), _rows(known)
    counts = known.sum(axis=1)
    return np.where(counts > 0, hits.sum(axis=1) / np.maximum(counts, 1), np.nan)


def _element_error(output: np.ndarray, labels: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if output.size != labels.size:
        raise MetricMismatch(
            f"The output is {list(output.shape)}, the labels are {list(labels.shape)}: no pairs can be formed.",
            "Give labels of the output's shape, or choose another output.",
        )
    left = _rows(output).astype(np.float64)
    error: np.ndarray = np.mean(measure(left - labels.reshape(left.shape).astype(np.float64)), axis=1)
    return error
