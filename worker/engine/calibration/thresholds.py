"""The range that an activation's codes should span, from its histogram."""

from typing import Literal

import numpy as np

from worker.engine.calibration.histogram import Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
CODES = 255
SHRINK_STEPS = 100
# A range of less than this share of the full one cuts away values that carry the signal.
LEAST_SHARE = 0.1
COARSE_BINS = 1024
# Below this many bins a cut histogram tells nothing about 255 codes.
LEAST_BINS = 128
# Ten a code: what fewer values leave empty says nothing of their distribution.
LEAST_VALUES = 10 * CODES


def choose_range(histogram: Histogram, method: Method, percentile: float) -> tuple[float, float]:
    """Lower and upper end; both within the extremes seen."""
    full = (histogram.low, histogram.high)
    if method == "minmax" or full[0] >= full[1]:
        return full
    if method == "percentile":
        low, high = _percentile(histogram, percentile)
    elif method == "entropy":
        low, high = _entropy(histogram)
    else:
        low, high = _mean_squared_error(histogram)
    return max(low, full[0]), min(high, full[1])


def _percentile(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """`percentile` of 100 values lie inside, and as many beyond either end."""
    edges, counts = histogram.edges()
    cut = (100.0 - percentile) / 200.0
    cumulative = np.cumsum(counts) / counts.sum()
    low = int(np.searchsorted(cumulative, cut, side="right"))
    high = int(np.searchsorted(cumulative, 1.0 - cut, side="left"))
    return float(edges[min(low, len(counts) - 1)]), float(edges[min(high, len(counts) - 1) + 1])


def _mean_squared_error(histogram: Histogram) -> tuple[float, float]:
    """The range with the least sum of squared rounding and clipping errors in 8 bits.

    Both ends shrink together first, then the upper one alone, then the lower one: 100 steps each.
    """
    centres, counts = _coarse(*histogram.bins())
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = np.linspace(1.0, LEAST_SHARE, SHRINK_STEPS)
    best = _least_error(centres, counts, low * shares, high * shares)
    best = _least_error(centres, counts, np.full(SHRINK_STEPS, best[0]), high * shares, best)
    return _least_error(centres, counts, low * shares, np.full(SHRINK_STEPS, best[1]), best)


def _least_error(
    centres: np.ndarray,
    counts: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    incumbent: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Of the ranges (n,), the one with the least error; the widest of equals. The incumbent is one of them."""
    if incumbent is not None:
        lows, highs = np.append(lows, incumbent[0]), np.append(highs, incumbent[1])
    scales = np.maximum((highs - lows) / CODES, 1e-38)[:, None]
    zero_points = np.clip(np.rint(-lows[:, None] / scales), 0, CODES)
    codes = np.clip(np.rint(centres / scales) + zero_points, 0, CODES)
    errors = ((codes - zero_points) * scales - centres) ** 2 @ counts
    index = int(np.argmin(errors))
    return float(lows[index]), float(highs[index])


def _coarse(centres: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bins as one, at its centre of mass; empty ones left out."""
    filled = counts > 0
    centres, counts = centres[filled], counts[filled].astype(np.float64)
    if len(centres) <= COARSE_BINS:
        return centres, counts
    order = np.argsort(centres, kind="stable")
    centres, counts = centres[order], counts[order]
    slots = ((centres - centres[0]) / (centres[-1] - centres[0]) * (COARSE_BINS - 1)).astype(np.int64)
    mass = np.bincount(slots, counts, COARSE_BINS)
    moment = np.bincount(slots, counts * centres, COARSE_BINS)
    used = mass > 0
    return moment[used] / mass[used], mass[used]


def _entropy(histogram: Histogram) -> tuple[float, float]:
    """The symmetric cut whose 8-bit version diverges least (KL) from the distribution with its tails folded in.

    Nothing is cut off where too few values were seen.

    P is the histogram cut at +-t with what lies outside added to the outermost bins; Q the same histogram, tails
    dropped, averaged over 255 codes and spread back over the bins that are not empty.
    S. Migacz, 8-bit Inference with TensorRT, GTC 2017.
    """
    edges, counts = histogram.edges()
    if counts.sum() < LEAST_VALUES:
        return float(edges[0]), float(edges[-1])
    centres = (edges[:-1] + edges[1:]) / 2
    largest = max(abs(float(edges[0])), abs(float(edges[-1])))
    least = largest * min(1.0, LEAST_BINS / max(len(counts), LEAST_BINS))
    best, best_divergence = largest, np.inf
    for threshold in np.linspace(least, largest, SHRINK_STEPS):
        inside = np.abs(centres) <= threshold
        if not inside.any():
            continue
        divergence = _divergence(counts, inside, threshold, centres)
        if divergence < best_divergence:
            best, best_divergence = float(threshold), divergence
    return max(-best, float(edges[0])), min(best, float(edges[-1]))


def _divergence(counts: np.ndarray, inside: np.ndarray, threshold: float, centres: np.ndarray) -> float:
    kept = counts[inside].astype(np.float64)
    reference = kept.copy()
    positions = np.flatnonzero(inside)
    reference[0] += counts[: positions[0]].sum()
    reference[-1] += counts[positions[-1] + 1 :].sum()
    low = max(-threshold, float(centres[0]))
    codes = np.clip(((centres[inside] - low) / max(threshold - low, 1e-30) * 254).astype(np.int64), 0, 254)
    occupied = kept > 0
    mass = np.bincount(codes, kept, 255)
    bins = np.bincount(codes, occupied, 255)
    spread = np.where(occupied, mass[codes] / np.maximum(bins[codes], 1), 0.0)
    # Bins that only the folded tails fill have no counterpart: a small mass keeps the divergence finite.
    smooth = 1e-4
    p = (reference + smooth) / (reference + smooth).sum()
    q = (spread + smooth) / (spread + smooth).sum()
    return float(np.sum(p * np.log(p / q)))
