"""A matrix in 4 or 8 bits with a scale for every block of its rows, in the layout of ONNX Runtime's MatMulNBits.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits: a column of the
matrix is cut into blocks; the codes of a block lie one after another, in 4 bits two to a byte, the first in its lower
half; w^ = scale (q - zero_point).
"""

from dataclasses import dataclass

import numpy as np

from worker.engine.affine import SMALLEST_SCALE, Affine

LEAST_BLOCK = 16
# A zero point for each block costs time at every call; below this share of the squared error it is worth that.
ZERO_POINTS_PAY = 0.8
SLAB_ELEMENTS = 1 << 22
BYTE_BITS = 8


@dataclass(frozen=True)
class Blocks:
    """A matrix `shape` (K, N), its N columns cut into B blocks of `block_size`, the last one padded.

    `packed` (N, B, block_size * bits / 8) uint8; `scales` (N, B) float32; `zero_points` (N, ceil(B * bits / 8)) uint8,
    packed in the same way, or None: 2^(bits-1) everywhere.
    """

    packed: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    shape: tuple[int, int]
    bits: int
    block_size: int

    @property
    def padded_rows(self) -> int:
        return int(self.scales.shape[1]) * self.block_size

    def zeros(self) -> np.ndarray:
        """The zero point of every block, `(N, B)` uint8."""
        if self.zero_points is None:
            return np.full(self.scales.shape, 1 << (self.bits - 1), np.uint8)
        return unpack(self.zero_points, self.bits)[:, : self.scales.shape[1]]

    def codes(self) -> np.ndarray:
        """uint8, of the matrix's shape with its padding: `(padded_rows, N)`."""
        return unpack(self.packed, self.bits).reshape(self.shape[1], -1).T

    def dequantize(self) -> np.ndarray:
        """float32 `(K, N)`."""
        codes = unpack(self.packed, self.bits).reshape(*self.scales.shape, -1).astype(np.float32)
        values = (codes - self.zeros()[..., None]) * self.scales[..., None]
        columns: np.ndarray = values.reshape(self.shape[1], -1)[:, : self.shape[0]]
        return columns.T


def block_quantize(matrix: np.ndarray, bits: int, block_size: int) -> Blocks:
    """Codes of a float32 matrix (K, N), rounded to the nearest; blocks no longer than a short column needs."""
    while block_size > LEAST_BLOCK and block_size >= 2 * matrix.shape[0]:
        block_size //= 2
    rows = _in_blocks(matrix, block_size)
    symmetric, asymmetric = _symmetric(rows, bits), _asymmetric(rows, bits)
    codes, error = _encode(rows, symmetric)
    other_codes, other_error = _encode(rows, asymmetric)
    shape = (matrix.shape[0], matrix.shape[1])
    if other_error < ZERO_POINTS_PAY * error:
        zero_points = pack(asymmetric.zero_point[..., 0].astype(np.uint8), bits)
        return Blocks(pack(other_codes, bits), asymmetric.scale[..., 0], zero_points, shape, bits, block_size)
    return Blocks(pack(codes, bits), symmetric.scale[..., 0], None, shape, bits, block_size)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes, in 4 bits two to a byte along the last axis, the first in the lower half; an odd one beside a 0."""
    if bits == BYTE_BITS:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
    packed: np.ndarray = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return packed


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """The inverse of `pack`: uint8, in 4 bits an even number of them along the last axis."""
    if bits == BYTE_BITS:
        return packed
    return np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _in_blocks(matrix: np.ndarray, block_size: int) -> np.ndarray:
    """`(N, B, block_size)` float32: columns as rows, zeros behind their end."""
    depth, width = matrix.shape
    count = -(-depth // block_size)
    rows = np.zeros((width, count * block_size), np.float32)
    rows[:, :depth] = matrix.T
    return rows.reshape(width, count, block_size)


def _symmetric(rows: np.ndarray, bits: int) -> Affine:
    """The largest value of a block, whatever its sign, has the code 0, which stands for one step more than the highest.

    A scale may so be negative.
    """
    middle = 1 << (bits - 1)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=2)[..., None], axis=2)
    scale = _usable(-largest / middle)
    return Affine(scale, np.full(scale.shape, middle, np.int64), 0, 2 * middle - 1)


def _asymmetric(rows: np.ndarray, bits: int) -> Affine:
    """The range of a block, widened to hold 0, onto all codes."""
    levels = (1 << bits) - 1
    low = rows.min(axis=2, keepdims=True).clip(max=0)
    high = rows.max(axis=2, keepdims=True).clip(min=0)
    scale = _usable((high - low) / levels)
    return Affine(scale, np.rint(-low / scale).clip(0, levels).astype(np.int64), 0, levels)


def _usable(scale: np.ndarray) -> np.ndarray:
    """float32; 1 where a block is all zeros, or so near to it that no normal number is its scale."""
    return np.where(np.abs(scale) < SMALLEST_SCALE, 1.0, scale).astype(np.float32)


def _encode(rows: np.ndarray, affine: Affine) -> tuple[np.ndarray, float]:
    """uint8 codes of the shape of `rows` (N, B, S), and the sum of squared errors; some columns at a time."""
    codes, error = np.empty(rows.shape, np.uint8), 0.0
    step = max(1, SLAB_ELEMENTS // (rows.shape[1] * rows.shape[2]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        own = Affine(affine.scale[part], affine.zero_point[part], affine.lowest, affine.highest)
        found = own.quantize(rows[part])
        codes[part] = found
        error += float(np.square(own.dequantize(found) - rows[part], dtype=np.float64).sum())
    return codes, error
