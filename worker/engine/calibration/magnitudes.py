"""Which tensors can hold no NaN while what they are made of is of a usual size.

Of finite operands a sum, a product or a sum of products is NaN only where something overflowed before. So what such
nodes make of tensors that are looked at need not be looked through for NaN itself, where no magnitude could have got
that far.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from worker.engine.graph import STANDARD_DOMAINS

# What is larger is looked through. Float32 ends at 3.4e38.
USUAL, GREATEST = 12, 38
LARGEST_USUAL = 10.0**USUAL
# More terms no sum of products has: their operands would not fit into memory.
TERMS = 9

KEEPING = {"Clip", "Concat", "Flatten", "HardSwish", "Identity", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
BOUNDED = {"HardSigmoid", "Sigmoid", "Tanh"}
SUMS = {"Add", "Sub", "Sum"}
PRODUCTS = {"Mul"}
SUMS_OF_PRODUCTS = {"Conv", "MatMul"}
# Their other inputs are sizes and axes, no numbers that anything is computed from.
MOVED = {"Reshape", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Magnitude:
    """At most 10 to the `exponent`, while none of the tensors of `sources` holds NaN or more than is usual."""

    exponent: float
    sources: frozenset[str] = frozenset()


def without_nan(graph: onnx.GraphProto, tensors: dict[str, int]) -> dict[str, frozenset[str]]:
    """Of `tensors` (element type by name) those that hold no NaN and no infinity, in the order of the graph.

    Each with those of `tensors` that this depends on: while they hold no NaN and no more than `LARGEST_USUAL`.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    known, found = dict[str, Magnitude | None](), dict[str, frozenset[str]]()
    for name in (value.name for value in graph.input if value.name in tensors):
        known[name] = Magnitude(USUAL, frozenset([name]))
    for node in graph.node:
        inputs = node.input[:1] if node.op_type in MOVED else [name for name in node.input if name]
        for name in inputs:
            if name not in known:
                known[name] = _of_constant(constants.get(name))
        made = _made(node, [known[name] for name in inputs])
        for name in node.output:
            known[name] = made
            if name in tensors:
                if made is not None and tensors[name] == TensorProto.FLOAT:
                    found[name] = made.sources
                known[name] = Magnitude(USUAL, frozenset([name]))
    return found


def _made(node: onnx.NodeProto, inputs: list[Magnitude | None]) -> Magnitude | None:
    """Of what a node computes; None where that can be anything."""
    operands = [one for one in inputs if one is not None]
    # Bounds and slopes that are attributes.
    usual = all(abs(attribute.f) <= LARGEST_USUAL for attribute in node.attribute)
    if len(operands) < len(inputs) or not operands or not usual or node.domain not in STANDARD_DOMAINS:
        return None
    largest = max(one.exponent for one in operands)
    product = sum(one.exponent for one in operands[:2])
    exponents = (
        (KEEPING, largest),
        (BOUNDED, 0.0),
        (SUMS, largest + math.log10(len(operands))),
        (PRODUCTS, product),
        (SUMS_OF_PRODUCTS, max(product + TERMS, largest) + 1),
    )
    exponent = next((found for operators, found in exponents if node.op_type in operators), math.inf)
    if exponent >= GREATEST:
        return None
    return Magnitude(exponent, frozenset().union(*(one.sources for one in operands)))


def _of_constant(tensor: onnx.TensorProto | None) -> Magnitude | None:
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return None
    values = numpy_helper.to_array(tensor)
    largest = max(float(values.max()), -float(values.min())) if values.size else 0.0
    return Magnitude(math.log10(max(largest, 1.0))) if np.isfinite(largest) else None
