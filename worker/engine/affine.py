"""The affine map between real numbers and integers: the one place where it is written down.

    S = (max - min) / (2^b - 1)      scale
    Z = round(-min / S)              zero point
    q = round(w / S) + Z             clipped to the integer's range
    w^ = S (q - Z)

B. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR
2018, arXiv:1712.05877, section 2.1. Rounding is half to even, as ONNX's QuantizeLinear rounds.
"""

from dataclasses import dataclass

import numpy as np

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Affine:
    """`scale` float32 and `zero_point` int64, both `()` or along one axis; integers lie in [lowest, highest]."""

    scale: np.ndarray
    zero_point: np.ndarray
    lowest: int
    highest: int

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """int64 of the shape of `values`; scale and zero point must broadcast against them."""
        codes: np.ndarray = np.rint(values.astype(np.float32) / self.scale).astype(np.int64) + self.zero_point
        return codes.clip(self.lowest, self.highest)

    def dequantize(self, codes: np.ndarray) -> np.ndarray:
        """float32 of the shape of `codes`."""
        values: np.ndarray = (codes - self.zero_point) * self.scale
        return values.astype(np.float32)


def unsigned(low: float, high: float, bits: int = 8) -> Affine:
    """The asymmetric map of [low, high] onto 0 .. 2^bits - 1.

    The range is widened to hold 0, which is then represented exactly: padding and ReLU must add no error. The scale is
    rounded so that no code stands for a value beyond `high`; a clip there can then be left to the integer's own.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    levels = 2**bits - 1
    scale = np.float32(max((high - low) / levels, SMALLEST_SCALE))
    if low == 0.0 and float(scale) * levels > high > SMALLEST_SCALE * levels:
        scale = np.nextafter(scale, np.float32(0))
    zero_point = int(np.clip(np.rint(-low / float(scale)), 0, levels))
    return Affine(np.asarray(scale, np.float32), np.asarray(zero_point, np.int64), 0, levels)


def signed(largest: np.ndarray | float, bits: int = 8) -> Affine:
    """The symmetric map of [-largest, largest] onto -(2^(bits-1) - 1) .. 2^(bits-1) - 1, zero point 0.

    `largest` is `()` or along one axis; where it is 0 any scale serves.
    """
    levels = 2 ** (bits - 1) - 1
    magnitudes = np.asarray(largest, np.float32)
    scale = np.where(magnitudes > 0, magnitudes / levels, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.float32(SMALLEST_SCALE))
    return Affine(scale, np.zeros(scale.shape, np.int64), -levels, levels)
