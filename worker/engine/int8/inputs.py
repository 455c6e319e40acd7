"""What weighted units are fed, as the rows of the product that each computes.

A row is what one output element is the sum of: the patch under a filter, or the vector before a matrix. Rows are drawn
at random from real calls, a bounded number a unit, and kept only as moments.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.int8.units import Unit
from worker.engine.model_file import ModelFile
from worker.engine.nodes import integer, text
from worker.engine.pass_contract import PassContext

# Twice as many rows as a product has terms determine its second moments; more than this settle nothing.
ROWS_A_TERM, LEAST_ROWS, MOST_ROWS = 2, 2048, 20_000
# Second moments between all terms of all units of one pass over the data.
GROUP_ELEMENTS = 96 << 20


@dataclass
class Moments:
    """Of rows `(n, G, K)`, G groups of K terms: sums `(G, K)` and, where wanted, products `(K, K)` (only for G = 1)."""

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    products: np.ndarray | None = None

    def add(self, rows: np.ndarray, with_products: bool) -> None:
        if not self.count:
            self.total = np.zeros(rows.shape[1:])
            self.squares = np.zeros(rows.shape[1:])
        self.count += len(rows)
        self.total += rows.sum(axis=0, dtype=np.float64)
        self.squares += np.square(rows, dtype=np.float64).sum(axis=0)
        if with_products:
            flat = rows[:, 0]
            update = flat.T @ flat
            self.products = update if self.products is None else self.products + update

    @property
    def mean(self) -> np.ndarray:
        """E[x] `(G, K)`."""
        return self.total / max(1, self.count)

    @property
    def power(self) -> np.ndarray:
        """E[x^2] `(G, K)`."""
        return self.squares / max(1, self.count)


def input_moments(
    model: ModelFile, units: list[Unit], context: PassContext, samples: int, with_products: bool
) -> Iterator[tuple[Unit, Moments]]:
    """Moments of the rows of each of `units`, one or a few units at a time.

    `with_products` asks for second moments between terms too, for units whose filters see every channel.

    Raises:
        ModelFails: a call fails.

    """
    chosen = np.arange(min(samples, context.feeds.sample_count))
    calls = -(-len(chosen) // context.feeds.samples_per_call(1))
    for number, group in enumerate(_groups(units, with_products)):
        generator = np.random.default_rng([context.seed, number])
        moments = {unit.name: Moments() for unit in group}
        names = {unit.sources[0].name or "": FLOAT for unit in group}
        for arrays in exposed_calls(model, names, context, chosen, f"inputs-{number}"):
            for unit in group:
                wanted = -(-_row_count(unit) // calls)
                rows = rows_of(unit, arrays[unit.sources[0].name or ""], wanted, generator)
                moments[unit.name].add(rows, with_products and rows.shape[1] == 1)
        yield from ((unit, moments[unit.name]) for unit in group)


def rows_of(unit: Unit, array: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`(n, G, K)` float32: at most `count` rows of what `unit` computes from its input `array`."""
    if unit.node.op_type != "Conv":
        flat = array.reshape(-1, 1, array.shape[-1])
        return flat if len(flat) <= count else flat[np.sort(generator.choice(len(flat), count, replace=False))]
    kernel = unit.weight_shape[2:]
    strides, dilations = _integers(unit.node, "strides", (1, 1)), _integers(unit.node, "dilations", (1, 1))
    extent = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    padded = np.pad(array, ((0, 0), (0, 0), *_pads(unit.node, array.shape[2:], extent, strides)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    batch, _channels, height, width = windows.shape[:4]
    places = batch * height * width
    picked = np.arange(places) if places <= count else np.sort(generator.choice(places, count, replace=False))
    sample, row, column = np.unravel_index(picked, (batch, height, width))
    patches = windows[sample, :, row, column]
    groups = integer(unit.node, "group", 1)
    return np.ascontiguousarray(patches).reshape(len(picked), groups, -1).astype(np.float32, copy=False)


def _pads(
    node: ir.Node, space: tuple[int, ...], extent: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros before and behind each axis of space. ONNX, operator Conv, attribute auto_pad."""
    automatic = text(node, "auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, reach, step in zip(space, extent, strides, strict=True):
            total = max(0, (-(-size // step) - 1) * step + reach - size)
            small, large = total // 2, total - total // 2
            sides.append((small, large) if automatic == "SAME_UPPER" else (large, small))
        return sides[0], sides[1]
    pads = _integers(node, "pads", (0, 0, 0, 0)) if automatic == "NOTSET" else (0, 0, 0, 0)
    return (pads[0], pads[2]), (pads[1], pads[3])


def _row_count(unit: Unit) -> int:
    return min(MOST_ROWS, max(LEAST_ROWS, ROWS_A_TERM * _terms(unit)))


def _terms(unit: Unit) -> int:
    """Terms of one output element."""
    return math.prod(unit.weight_shape) // unit.channel_count


def _groups(units: list[Unit], with_products: bool) -> Iterator[list[Unit]]:
    group: list[Unit] = []
    elements = 0
    for unit in units:
        needed = _terms(unit) ** 2 if with_products and integer(unit.node, "group", 1) == 1 else 2 * _terms(unit)
        if group and elements + needed > GROUP_ELEMENTS:
            yield group
            group, elements = [], 0
        group.append(unit)
        elements += needed
    if group:
        yield group


def _integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(int(value) for value in attribute.as_ints())
