"""Cross-layer equalization: the channels between two layers are rescaled so that both layers' weights spread alike.

    s_i = sqrt(r1_i / r2_i)    W1_i / s_i, b1_i / s_i, W2 s_i    r: largest magnitude of a channel's weights

M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, arXiv:1906.04721,
section 4.1. Exact where nothing but Relu lies between the layers.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.int8.units import Role, Unit, units_of
from worker.engine.int8.weights import along
from worker.engine.nodes import add_initializer, constant, integer, is_operator, only_reader

ROUNDS = 4
# Beyond this a channel that is nearly dead would be blown up.
LARGEST_FACTOR = 64.0


@dataclass(frozen=True)
class Pair:
    """Two convolutions, the output of the first read by the second alone."""

    first: Unit
    second: Unit


def equalize(model: ir.Model) -> int:
    """Rescale every pair of convolutions in place, a few rounds over all; returns how many pairs there are."""
    pairs = pairs_of(model)
    for _ in range(ROUNDS if pairs else 0):
        for pair in pairs:
            _equalize(model.graph, pair)
    return len(pairs)


def pairs_of(model: ir.Model) -> list[Pair]:
    """In the order of the graph."""
    units = {unit.node: unit for unit in units_of(model) if unit.node.op_type == "Conv" and unit.role is Role.WEIGHTED}
    found = []
    for unit in units.values():
        if unit.activation is not None and not is_operator(unit.activation, "Relu"):
            continue
        reader = only_reader(unit.output)
        second = units.get(reader) if reader is not None else None
        if second is not None and _ungrouped_or_depthwise(unit) and _ungrouped_or_depthwise(second):
            found.append(Pair(unit, second))
    return found


def _equalize(graph: ir.Graph, pair: Pair) -> None:
    first, second = pair.first.weight_values, pair.second.weight_values
    ranges = np.abs(first).reshape(len(first), -1).max(axis=1)
    behind = np.abs(second if _is_depthwise(pair.second) else np.moveaxis(second, 1, 0))
    ranges_behind = behind.reshape(len(first), -1).max(axis=1)
    alive = (ranges > 0) & (ranges_behind > 0)
    factors = np.sqrt(np.where(alive, ranges, 1.0) / np.where(alive, ranges_behind, 1.0))
    factors = np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
    _scale(graph, pair.first, 1, first / along(factors, 0, first.ndim))
    bias = constant(pair.first.bias)
    if bias is not None:
        _scale(graph, pair.first, 2, bias / factors)
    input_axis = 0 if _is_depthwise(pair.second) else 1
    _scale(graph, pair.second, 1, second * along(factors, input_axis, second.ndim))


def _scale(graph: ir.Graph, unit: Unit, index: int, values: np.ndarray) -> None:
    made = add_initializer(graph, f"{unit.name}/equalized_{index}", values.astype(np.float32))
    unit.node.replace_input_with(index, made)


def _is_depthwise(unit: Unit) -> bool:
    return integer(unit.node, "group", 1) > 1


def _ungrouped_or_depthwise(unit: Unit) -> bool:
    groups = integer(unit.node, "group", 1)
    return groups == 1 or (groups == unit.channel_count and unit.weight_shape[1] == 1)
