"""Products: nodes that multiply what they are fed by a constant weight, and that weight as a row an output channel."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import integer, text


@dataclass(frozen=True)
class Product:
    """A Conv, a Gemm (not `transA`), or a MatMul by a matrix on its right.

    `weight_shape` is that of its second input, which is constant: it is known without reading the values.
    """

    node: ir.Node
    weight_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def source(self) -> str:
        """Name of the tensor that it is fed."""
        fed = self.node.inputs[0]
        return "" if fed is None else fed.name or ""

    @property
    def channel_axis(self) -> int:
        """The axis of the weight that counts output channels."""
        if self.node.op_type == "Conv" or (self.node.op_type == "Gemm" and integer(self.node, "transB", 0)):
            return 0
        return 1

    @property
    def channel_count(self) -> int:
        """Output channels."""
        return self.weight_shape[self.channel_axis]

    @property
    def groups(self) -> int:
        """Equal parts of the channels that are summed apart; 1 but for grouped convolutions."""
        return integer(self.node, "group", 1)

    @property
    def terms(self) -> int:
        """Terms of one output element."""
        return math.prod(self.weight_shape) // max(1, self.channel_count)

    def fed(self, array: np.ndarray) -> np.ndarray:
        """Of the tensor `source`, all that it multiplies."""
        return array

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """`(C, K)` of a weight of that shape: see `as_rows`."""
        return as_rows(weight, self.channel_axis)


@dataclass(frozen=True)
class RecurrentProduct(Product):
    """A recurrent layer that multiplies every row of its input by W, or `fed_back` of what it made by R.

    Either is `(D, gates x H, K)` for D directions; of R one `direction` may be looked at by itself.
    """

    fed_back: bool = False
    direction: int | None = None

    @property
    def name(self) -> str:
        return f"{super().name}, fed back {self.direction}" if self.fed_back else super().name

    @property
    def source(self) -> str:
        return self.node.outputs[0].name or "" if self.fed_back else super().source

    @property
    def channel_count(self) -> int:
        return math.prod(self.weight_shape[:-1])

    def fed(self, array: np.ndarray) -> np.ndarray:
        """Of `(T, D, N, H)`: a step is fed what the one before it made, which for the last to be made is nobody."""
        if not self.fed_back:
            return array
        if self.direction is None:
            return array[:-1]
        runs = text(self.node, "direction", "forward")
        backward = runs == "reverse" or (runs == "bidirectional" and self.direction == 1)
        return array[1:, self.direction] if backward else array[:-1, self.direction]

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """`(D x gates x H, K)` of W or R."""
        return weight.reshape(self.channel_count, self.weight_shape[-1])


def as_rows(weight: np.ndarray, axis: int) -> np.ndarray:
    """`(C, K)`: one row an output channel, in the order in which a product sums."""
    moved = np.moveaxis(weight, axis, 0)
    return moved.reshape(len(moved), math.prod(moved.shape[1:]))  # -1 says nothing where there are no elements


def from_rows(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of `as_rows`."""
    moved = (shape[axis], *(size for position, size in enumerate(shape) if position != axis))
    return np.moveaxis(rows.reshape(moved), 0, axis)
