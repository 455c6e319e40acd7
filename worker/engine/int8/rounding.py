"""Rounding weights so that products change least on real inputs, rather than weights.

Clip search: the scale of each output channel among shares of its largest weight, errors weighted by the power of what
they are multiplied by. GPTQ: E. Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers, ICLR 2023, arXiv:2210.17323, algorithm 1, columns in the order of falling power.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.linalg

from worker.engine.affine import Affine
from worker.engine.int8.saturation import Pairs
from worker.engine.int8.weights import Codes, encode, map_of, rounded, widened
from worker.engine.moments.moments import Moments
from worker.engine.moments.products import as_rows

CLIP_SHARES = np.linspace(1.0, 0.6, 21)
DAMPING = 0.01
BLOCK = 128


def searched_map(rows: np.ndarray, power: np.ndarray, pairs: Pairs | None = None) -> Affine:
    """The symmetric map of each row of `(C, K)` with the least error weighted by `power`, `(K,)` or `(C, K)`."""
    full = map_of(rows, pairs=pairs)
    best = np.full((len(rows), 1), np.inf)
    scale = full.scale
    for share in CLIP_SHARES:
        affine = Affine((full.scale * np.float32(share)).astype(np.float32), full.zero_point, full.lowest, full.highest)
        error = (np.square(affine.dequantize(rounded(rows, affine, pairs)) - rows) * power).sum(axis=1, keepdims=True)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, affine.scale, scale)
    return Affine(scale, full.zero_point, full.lowest, full.highest)


@dataclass(frozen=True)
class Rounding:
    """How weights become codes."""

    unsaturated: bool = False
    """Within what kernels hold that add in 16 bits."""
    per_channel: bool = True
    clip: bool = True
    """Search the scale; only where each channel has its own."""
    gptq: bool = False
    sharing: frozenset[str] = frozenset()
    """Names of units whose channels share a scale all the same."""

    def of(self, unit: str) -> Self:
        """How the weights of one unit become codes."""
        return replace(self, per_channel=self.per_channel and unit not in self.sharing)


def codes_of(
    weight: np.ndarray,
    axis: int,
    rounding: Rounding,
    moments: Moments | None,
    least_scale: np.ndarray,
    depthwise: bool = False,
) -> Codes:
    """Codes of a weight; without the moments of its inputs every weight is rounded to the nearest by the full range."""
    rows = as_rows(weight, axis).astype(np.float32)
    pairs = Pairs.of(weight.shape, axis) if rounding.unsaturated and not depthwise else None
    affine = map_of(rows, rounding.per_channel, pairs)
    least = least_scale if rounding.per_channel else least_scale.max(initial=0)
    if moments is None or not moments.count:
        return encode(rows, widened(affine, least), weight.shape, axis, pairs)
    if rounding.clip and rounding.per_channel:
        affine = searched_map(rows, _power_by_row(moments.power, len(rows)), pairs)
    affine = widened(affine, least)
    if rounding.gptq and moments.products is not None:
        rows = compensated(rows, moments.products, affine)
    return encode(rows, affine, weight.shape, axis, pairs)


def compensated(rows: np.ndarray, products: np.ndarray, affine: Affine) -> np.ndarray:
    """Values `(C, K)` on the grid of `affine`: each column's rounding error is made up for by the columns after it.

    `products` `(K, K)` is X^T X. Terms that are always 0 are rounded to the nearest.
    """
    order = np.argsort(-np.diag(products), kind="stable")
    hessian = products[np.ix_(order, order)].astype(np.float64)
    damping = DAMPING * float(np.mean(np.diag(hessian)))
    hessian[np.diag_indices_from(hessian)] += damping if damping > 0 else 1.0
    factor = _upper_factor_of_inverse(hessian)
    values = rows[:, order].astype(np.float64)
    kept = np.empty_like(values)
    count = values.shape[1]
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        errors = np.empty((len(values), end - start))
        for column in range(start, end):
            code = affine.quantize(values[:, column : column + 1].astype(np.float32))
            kept[:, column] = affine.dequantize(code)[:, 0]
            errors[:, column - start] = (values[:, column] - kept[:, column]) / factor[column, column]
            values[:, column:end] -= np.outer(errors[:, column - start], factor[column, column:end])
        values[:, end:] -= errors @ factor[start:end, end:]
    result = np.empty_like(kept)
    result[:, order] = kept
    return result


def _upper_factor_of_inverse(hessian: np.ndarray) -> np.ndarray:
    """U with U^T U = H^-1, upper triangular."""
    lower = scipy.linalg.cholesky(hessian, lower=True, check_finite=False)
    inverse, _ = scipy.linalg.lapack.dpotri(lower, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return np.asarray(scipy.linalg.cholesky(inverse, lower=False, check_finite=False))


def _power_by_row(power: np.ndarray, channels: int) -> np.ndarray:
    """`(1, K)` or `(C, K)` from `(G, K)`: output channels come in G groups, one behind another."""
    return power if len(power) == 1 else np.repeat(power, channels // len(power), axis=0)


def bias_shift(weight: np.ndarray, codes: Codes, moments: Moments) -> np.ndarray:
    """What rounding takes from each output channel on average, `(C,)` float32: (W - W^) E[x].

    M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
    arXiv:1906.04721, section 4.2.
    """
    lost = as_rows(weight, codes.axis).astype(np.float64) - as_rows(codes.dequantize(), codes.axis)
    shift: np.ndarray = (lost * _power_by_row(moments.mean, len(lost))).sum(axis=1)
    return shift.astype(np.float32)
