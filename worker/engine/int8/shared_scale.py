"""Products of few rows, whose output channels share one weight scale because the kernel is then faster.

A kernel that gives each column a scale of its own spends about 2 ns more a column, whatever the number of rows: a
quarter of the time of a perceptron at one row (28 in place of 39 us for 784 x 1536 x 1536 x 10, Zen 5, onnxruntime
1.32), nothing of a convolution's.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from worker.engine.int8.units import Role, Unit
from worker.engine.moments.products import as_rows
from worker.engine.sessions import Feed

# Terms that a column sums over all rows: with more of them the scales cost too little to be felt.
MOST_TERMS = 4096
# The power of rounding errors may grow by this much. (A perceptron on digits whose layers lose 8.7, 4.2 and 2.4 dB by
# this measure keeps 46.2 dB of 48.1: the largest weights stand at pixels that are never lit.)
MOST_LOST = 10.0


def sharing(units: Iterable[Unit], inputs: Iterable[ir.Value], feed: Feed) -> frozenset[str]:
    """Names of the products that are fed so few rows by a call with `feed`, and lose little by sharing."""
    sizes = sizes_of_axes(inputs, feed)
    return frozenset(unit.name for unit in units if _gains(unit, sizes) and _loss(unit) <= MOST_LOST)


def sizes_of_axes(inputs: Iterable[ir.Value], feed: Feed) -> dict[str, int]:
    """Size by name of the axes that the graph leaves open."""
    found = {}
    for value in inputs:
        array = feed.get(value.name or "")
        if array is not None and value.shape is not None:
            for axis, size in zip(value.shape, array.shape, strict=False):
                if isinstance(axis, ir.SymbolicDim) and axis.value:
                    found[str(axis.value)] = size
    return found


def _gains(unit: Unit, sizes: Mapping[str, int]) -> bool:
    if unit.role is not Role.WEIGHTED or unit.node.op_type == "Conv":
        return False
    shape = unit.sources[0].shape
    if shape is None:
        return False
    axes = [axis if isinstance(axis, int) else sizes.get(str(axis.value)) for axis in shape]
    known = [size for size in axes if size is not None]
    return len(known) == len(axes) and math.prod(known) <= MOST_TERMS


def _loss(unit: Unit) -> float:
    """By how much the power of rounding errors grows where all channels take the largest scale."""
    largest = np.abs(as_rows(unit.weight_values, unit.channel_axis)).max(axis=1, initial=0).astype(np.float64)
    power = float(np.mean(np.square(largest)))
    return float(np.square(largest.max())) / power if power else 1.0
