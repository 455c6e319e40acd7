"""Constants as float16."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import MOVES, float32_constant, is_operator

LARGEST, SMALLEST = float(np.finfo(np.float16).max), np.finfo(np.float16).smallest_subnormal

# What they make of a constant may hold it as it is.
HANDS_ON = MOVES | {"Where", "Add", "Sub", "Mul", "Div", "Neg", "Max"}


@dataclass(frozen=True)
class Narrowed:
    """`values` float16; `raised` is how many of them lie closer to 0 in float32 than float16 can tell from 0."""

    values: np.ndarray
    raised: int


def narrow(values: np.ndarray) -> Narrowed:
    """To the nearest; but what is not 0 does not become 0: it may be divided by."""
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    lost = (half == 0) & (values != 0)
    half[lost] = np.copysign(SMALLEST, values[lost]).astype(np.float16)
    return Narrowed(half, int(lost.sum()))


def nodes_beyond(model: ir.Model, tensors: Collection[str]) -> list[str]:
    """Names of the nodes that touch one of `tensors`, or a constant with a finite value that float16 does not have.

    Nor may what hands such a constant on: masks hide by the lowest number, which no sample may show.
    """
    reads = {node: [value for value in node.inputs if value is not None] for node in model.graph.all_nodes()}
    values = {value for found in reads.values() for value in found}
    constants = {value for value in values if not _fits(float32_constant(value))}
    for node, found in reads.items():
        # What is divided by such a constant becomes small.
        handed = found[:1] if is_operator(node, "Div") else found
        if is_operator(node, *HANDS_ON) and any(value in constants for value in handed):
            constants.update(node.outputs)
    wide = constants | {value for value in values if value.name in tensors}
    return [
        node.name or ""
        for node, found in reads.items()
        if any(value in wide for value in found) or any(value.name in tensors for value in node.outputs)
    ]


def _fits(array: np.ndarray | None) -> bool:
    finite = np.zeros(0) if array is None else np.abs(array[np.isfinite(array)])
    return not finite.size or float(finite.max()) <= LARGEST
