"""Which codes a weight may have: 8 bits or fewer, and where training starts from on each grid.

4 and 2 bits: S. Esser et al., Learned Step Size Quantization, ICLR 2020, arXiv:1902.08153. Ternary: F. Li et al.,
Ternary Weight Networks, arXiv:1605.04711; its threshold is half of its scale at the optimum, so it is rounding to the
nearest of three codes. Binary: M. Rastegari et al., XNOR-Net, arXiv:1603.05279: the sign, times the mean magnitude.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from app.recipes.quantization import WeightBits
from worker.engine.affine import SMALLEST_SCALE, Affine
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.saturation import Pairs
from worker.engine.int8.units import Unit
from worker.engine.int8.weights import Codes, encode
from worker.engine.moments.products import as_rows, from_rows

# Of the scale that holds the largest weight: what the search for the least error tries.
SHARES = np.linspace(1.0, 0.05, 48)


@dataclass(frozen=True)
class Grid:
    """Codes from `lowest` to `highest`, 0 among them or not."""

    lowest: int
    highest: int
    has_zero: bool = True

    @property
    def codes(self) -> list[int]:
        return [code for code in range(self.lowest, self.highest + 1) if code or self.has_zero]

    def nearest(self, rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """int64 of the shape of `rows` `(C, K)`; `scale` is `(C, 1)`."""
        if not self.has_zero:
            found: np.ndarray = np.where(rows >= 0, self.highest, self.lowest).astype(np.int64)
        else:
            found = Affine(scale, np.zeros(scale.shape, np.int64), self.lowest, self.highest).quantize(rows)
        return found

    def best_scale(self, rows: np.ndarray) -> np.ndarray:
        """float32 `(C, 1)` of about the least squared error; 1 where a row is all zeros."""
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        best, kept = np.full(largest.shape, np.inf), np.ones_like(largest)
        for share in SHARES:
            scale = np.maximum(share * largest / self.highest, SMALLEST_SCALE).astype(np.float32)
            codes = self.nearest(rows, scale)
            # Of these codes the scale of least error, which they may have been found with another.
            power = np.square(codes).sum(axis=1, keepdims=True)
            fitted = np.maximum((rows * codes).sum(axis=1, keepdims=True) / np.maximum(power, 1), SMALLEST_SCALE)
            error = np.square(fitted * codes - rows).sum(axis=1, keepdims=True)
            better = (error < best) & (power > 0)
            best, kept = np.where(better, error, best), np.where(better, fitted, kept)
        made: np.ndarray = kept.astype(np.float32)
        return made


GRIDS: Mapping[WeightBits, Grid] = {
    8: Grid(-127, 127),
    4: Grid(-8, 7),
    2: Grid(-2, 1),
    "ternary": Grid(-1, 1),
    "binary": Grid(-1, 1, has_zero=False),
}


@dataclass(frozen=True)
class GriddedWeight:
    """The weight of one unit on its grid; `start` is where training begins. `shared`: all channels have one scale."""

    grid: Grid
    start: Codes
    shared: bool = False
    pairs: Pairs | None = None
    """Neighbours that must not saturate together; None where nothing saturates."""

    def codes(self, weight: np.ndarray, scale: np.ndarray) -> Codes:
        """A float32 weight rounded with `scale` `(C,)`, as kernels will see it."""
        axis = self.start.axis
        rows, wide = as_rows(weight, axis), scale.astype(np.float32).reshape(-1, 1)
        if not self.grid.has_zero:
            codes = from_rows(self.grid.nearest(rows, wide), weight.shape, axis).astype(np.int8)
            return Codes(np.ascontiguousarray(codes), wide.reshape(-1), axis)
        affine = Affine(wide, np.zeros(wide.shape, np.int64), self.grid.lowest, self.grid.highest)
        return encode(rows, affine, weight.shape, axis, self.pairs)

    def latent(self, weight: np.ndarray) -> np.ndarray:
        """float32 that rounds to `start`: the weight itself wherever it does."""
        rounded = self.codes(weight, self.start.scale).codes == self.start.codes
        return np.where(rounded, weight, self.start.dequantize())


def in_8_bits(unit: Unit, codes: Codes, rounding: Rounding) -> GriddedWeight:
    """As post-training quantization left it."""
    limited = rounding.unsaturated and not unit.is_depthwise
    pairs = Pairs.of(unit.weight_shape, unit.channel_axis) if limited else None
    return GriddedWeight(GRIDS[8], codes, not rounding.of(unit.name).per_channel, pairs)


def in_fewer_bits(unit: Unit, bits: WeightBits) -> GriddedWeight:
    """Rounded to the nearest by a scale for each channel. Codes this small saturate no kernel."""
    grid, axis = GRIDS[bits], unit.channel_axis
    weight = unit.weight_values
    rows = as_rows(weight, axis).astype(np.float32)
    scale = grid.best_scale(rows)
    codes = from_rows(grid.nearest(rows, scale), weight.shape, axis).astype(np.int8)
    return GriddedWeight(grid, Codes(np.ascontiguousarray(codes), scale.reshape(-1), axis))


def gridded(
    weighted: Sequence[Unit], few: Collection[str], bits: WeightBits, codes: Mapping[str, Codes], rounding: Rounding
) -> dict[str, GriddedWeight]:
    """By unit: in `bits` for those named in `few`, else in 8 bits from `codes`. A weight that several units read, and
    that was rounded for the first of them, is one and the same for all.
    """
    found: dict[str, GriddedWeight] = {}
    known: dict[tuple[ir.Value, int, int | None], GriddedWeight] = {}
    for unit in weighted:
        own = None if unit.name in few else codes[unit.name]
        key = unit.weight, unit.channel_axis, None if own is None else id(own)
        if key not in known:
            known[key] = in_fewer_bits(unit, bits) if own is None else in_8_bits(unit, own, rounding)
        found[unit.name] = known[key]
    return found
