"""8-bit weights whose products saturate nowhere.

Without VNNI the kernels add the products of two neighbouring terms, unsigned by signed 8 bits, in 16 bits (VPMADDUBSW):
255 x (127 + 127) does not fit. The usual remedy is 7 bits for every weight. What it takes is less: that no two
neighbours of one sign exceed 128 together, for 255 x 128 < 2^15. On normally distributed weights that costs 2 dB in
place of 6.

Neighbours are so in the order in which ONNX Runtime sums: for a filter channel by channel at one place of the kernel,
for a matrix row by row. Depthwise filters are summed in 32 bits. (Tried pair by pair: onnxruntime 1.32, Zen 3.)
"""

from dataclasses import dataclass

import numpy as np

LARGEST_SUM = 128


@dataclass(frozen=True)
class Pairs:
    """Positions `(P,)` in a row of weights of the terms that are added first, two by two."""

    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: int) -> "Pairs":
        """Those of a weight of `shape` whose output channels `axis` counts."""
        terms = np.delete(shape, axis)
        # Channels of a filter come behind the axes of its kernel; a row of a matrix has one axis, which stays.
        order = np.moveaxis(np.arange(terms.prod()).reshape(terms), 0, -1).reshape(-1)
        whole = len(order) // 2 * 2
        return cls(order[0:whole:2], order[1:whole:2])

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """`(C, P)` of `rows` `(C, K)`: `|w_0 + w_1|` of every two of one sign, 0 of others."""
        first, second = rows[:, self.first], rows[:, self.second]
        return np.where(first * second > 0, np.abs(first + second), 0)

    def least_scale(self, rows: np.ndarray) -> np.ndarray:
        """`(C, 1)`: by it no pair of `rows` `(C, K)` exceeds the limit once rounded."""
        # Two weights of different signs never exceed it; rounding adds half a step to each of two.
        largest: np.ndarray = self.sums(rows).max(axis=1, keepdims=True, initial=0) / (LARGEST_SUM - 1)
        return largest.astype(np.float32)

    def limited(self, codes: np.ndarray) -> np.ndarray:
        """`codes` `(C, K)`, both of each pair that exceeds the limit moved towards 0 by half of what is too much."""
        sums = self.sums(codes)
        # Few do, and training asks at each of its steps.
        row, pair = np.nonzero(sums > LARGEST_SUM)
        first, second = self.first[pair], self.second[pair]
        excess, signs = sums[row, pair] - LARGEST_SUM, np.sign(codes[row, first])
        made = codes.copy()
        made[row, first] -= signs * ((excess + 1) // 2)
        made[row, second] -= signs * (excess // 2)
        return made
