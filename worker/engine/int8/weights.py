"""Weights in 8 bits: the scale of every output channel, and the codes."""

from dataclasses import dataclass

import numpy as np

from worker.engine.affine import Affine, signed
from worker.engine.int8.saturation import Pairs
from worker.engine.moments.products import from_rows

LARGEST_INT32 = 2.0**31 - 1


@dataclass(frozen=True)
class Codes:
    """`codes` int8 of the weight's shape; `scale` float32 `(C,)` along `axis`."""

    codes: np.ndarray
    scale: np.ndarray
    axis: int

    def dequantize(self) -> np.ndarray:
        """float32 of the weight's shape."""
        values: np.ndarray = self.codes * along(self.scale, self.axis, self.codes.ndim)
        return values.astype(np.float32)


def along(values: np.ndarray, axis: int, dimensions: int) -> np.ndarray:
    """`(C,)` shaped to broadcast along `axis`."""
    return values.reshape([-1 if position == axis else 1 for position in range(dimensions)])


def map_of(rows: np.ndarray, per_channel: bool = True, pairs: Pairs | None = None) -> Affine:
    """The symmetric map that holds the largest weight, and pair, of each row of `(C, K)`; scale `(C, 1)`."""
    affine = signed(np.abs(rows).max(axis=1, keepdims=True, initial=0))
    if pairs is not None:
        affine = widened(affine, pairs.least_scale(rows))
    return affine if per_channel else widened(affine, affine.scale.max(initial=0))


def widened(affine: Affine, least_scale: np.ndarray) -> Affine:
    """The same map, its scale `(C, 1)` no smaller than `least_scale`, `(C, 1)` or `()`."""
    scale = np.maximum(affine.scale, least_scale).astype(np.float32)
    return Affine(scale, affine.zero_point, affine.lowest, affine.highest)


def least_scale(bias: np.ndarray | None, input_scale: float) -> np.ndarray:
    """The scale `(C, 1)` below which a bias `(C,)` would not fit into 32 bits; `()` zero where there is none."""
    if bias is None:
        return np.zeros((), np.float32)
    # Half of the range is left for what the bias is corrected by.
    least: np.ndarray = 2 * np.abs(bias) / (LARGEST_INT32 * input_scale)
    return least.astype(np.float32)[:, None]


def rounded(rows: np.ndarray, affine: Affine, pairs: Pairs | None = None) -> np.ndarray:
    """int64 codes of `rows` `(C, K)`, those of each pair within what 16 bits hold."""
    codes = affine.quantize(rows)
    return codes if pairs is None else pairs.limited(codes)


def encode(rows: np.ndarray, affine: Affine, shape: tuple[int, ...], axis: int, pairs: Pairs | None = None) -> Codes:
    """int8 codes of a weight of `shape` from its float rows `(C, K)`, a channel of `axis` each; `affine` `(C, 1)`."""
    codes = from_rows(rounded(rows, affine, pairs), shape, axis).astype(np.int8)
    return Codes(np.ascontiguousarray(codes), affine.scale.reshape(-1), axis)


def bias_codes(bias: np.ndarray, input_scale: float, codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """int32 codes `(C,)` of a float32 bias and their scale `(C,)`, which the kernel fixes: input's times weight's."""
    scale = (np.float32(input_scale) * codes.scale).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # two scales of next to nothing have 0 as their product
        rounded = np.nan_to_num(np.rint(bias.astype(np.float64) / scale))
    return np.clip(rounded, -LARGEST_INT32, LARGEST_INT32).astype(np.int32), scale
