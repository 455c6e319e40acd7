"""A histogram that is fed value by value and never needs to know its range beforehand.

Bins are the intervals [i w, (i + 1) w) with w a power of two, so two neighbours merge into one of twice the width. The
width follows from the largest magnitude alone: the same values give the same histogram in whatever order they come.
"""

import math
from dataclasses import dataclass, field

import numpy as np

# Bins between 0 and the largest magnitude: 2048 to 4096 of them, 8 to 16 for each code of 8 bits.
LOG2_BINS = 12
# Smaller widths would leave what float32 resolves.
LEAST_EXPONENT = -140


@dataclass
class Histogram:
    """Counts (B,) int64 of values; `low` and `high` are the extremes told to `add`, exact."""

    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    _exponent: int = LEAST_EXPONENT
    _first: int = 0
    _counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: np.ndarray, low: float, high: float) -> None:
        """Count finite float32 `values` `(n,)`, a tensor with extremes `low` and `high` or a sample of it, or none."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(self.low), abs(self.high))
        exponent = max(LEAST_EXPONENT, math.frexp(largest)[1] - LOG2_BINS) if largest else LEAST_EXPONENT
        zeros = len(values) - int(np.count_nonzero(values))
        self.zeros += zeros
        if not len(self._counts):
            self._exponent = exponent
        self._widen(exponent)
        if zeros == len(values):
            return
        # In float64 every float32 times any of these powers of two is exact.
        scale = math.ldexp(1.0, -self._exponent)
        self._reach(math.floor(self.low * scale), math.floor(self.high * scale))
        places = np.multiply(values, scale, dtype=np.float64)
        np.floor(places, out=places)
        places -= self._first
        self._counts += np.bincount(places.astype(np.int64), minlength=len(self._counts))
        if zeros:
            self._counts[-self._first] -= zeros

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres (B,) float64 and counts (B,) of all values, those equal to 0 as a bin of their own."""
        width = math.ldexp(1.0, self._exponent)
        centres = (np.arange(len(self._counts)) + self._first + 0.5) * width
        return np.append(centres, 0.0), np.append(self._counts, self.zeros)

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges (B + 1,) float64 and counts (B,), values equal to 0 counted in the bin that begins there."""
        counts, first = self._counts, self._first
        if self.zeros:
            first, counts = _reaching(counts, first, 0, 0)
            counts = counts.copy()
            counts[-first] += self.zeros
        width = math.ldexp(1.0, self._exponent)
        return (np.arange(len(counts) + 1) + first) * width, counts

    def _widen(self, exponent: int) -> None:
        while self._exponent < exponent and len(self._counts):
            # A bin of twice the width begins at an even index.
            if self._first % 2:
                self._counts, self._first = np.append(0, self._counts), self._first - 1
            if len(self._counts) % 2:
                self._counts = np.append(self._counts, 0)
            self._counts = self._counts[0::2] + self._counts[1::2]
            self._first //= 2
            self._exponent += 1
        self._exponent = max(self._exponent, exponent)

    def _reach(self, first: int, last: int) -> None:
        self._first, self._counts = _reaching(self._counts, self._first, first, last)


def _reaching(counts: np.ndarray, first: int, low: int, high: int) -> tuple[int, np.ndarray]:
    """The same counts in an array that holds the indices `low` to `high` as well."""
    if not len(counts):
        return low, np.zeros(high - low + 1, np.int64)
    before, behind = max(0, first - low), max(0, high - first - len(counts) + 1)
    return first - before, np.pad(counts, (before, behind)) if before or behind else counts
