"""Codes of fewer than 8 bits side by side in bytes, with the nodes that take them apart when the file is loaded.

Those nodes read constants alone, so ONNX Runtime runs them once and its int8 kernels get the codes as they like them:
there are no kernels of fewer bits for what runs in int8, and what is gained is the size of the file. They are of opset
13, as what `worker.engine.weight_only.stored` writes.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.grids import Grid
from worker.engine.int8.weights import Codes
from worker.engine.model_file import ModelFile
from worker.engine.weight_only.stored import Unpacking

BYTE = 8


def bits_of(grid: Grid) -> int:
    """That a code takes in a byte: 1, 2 or 4, of which a whole number fits; 8 where it has one of its own."""
    return next(bits for bits in (1, 2, 4, 8) if len(grid.codes) <= 2**bits)


def pack_weights(made: ModelFile, codes: Mapping[str, Codes], grids: Mapping[str, Grid], folder: Path) -> ModelFile:
    """The int8 file with the weights of `grids`' units in as few bits as their grids need; found by what they hold."""
    model = read_graph(made)
    wanted = {_content(codes[unit].codes): grid for unit, grid in grids.items() if bits_of(grid) < BYTE}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.INT8:
            continue
        grid = wanted.get(_content(tensor.numpy()))
        if grid is not None:
            _write(model.graph, name, value, tensor.numpy(), grid)
    return save_graph(model, folder)


def _content(codes: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return codes.shape, codes.tobytes()


def _write(graph: ir.Graph, name: str, value: ir.Value, codes: np.ndarray, grid: Grid) -> None:
    """A byte holds numbers of codes that lie a part of all of them apart: the nodes handle long rows, few times."""
    bits = bits_of(grid)
    step = 1 if grid.has_zero else 2
    numbers = ((codes.astype(np.int64) - grid.lowest) // step).astype(np.uint8).reshape(-1)
    parts = BYTE // bits
    length = -(-len(numbers) // parts)
    rows = np.pad(numbers, (0, parts * length - len(numbers))).reshape(parts, length)
    packed = np.bitwise_or.reduce([row << np.uint8(bits * place) for place, row in enumerate(rows)])
    unpacking = Unpacking(graph, name)
    whole = unpacking.constant("packed", packed)
    taken = []
    for place in range(parts):
        left, right = BYTE - bits * (place + 1), BYTE - bits
        shifted = whole
        if left:
            shifted = unpacking.step("BitShift", whole, _byte(unpacking, left), direction="LEFT")
        taken.append(unpacking.step("BitShift", shifted, _byte(unpacking, right), direction="RIGHT"))
    flat = unpacking.to_float(unpacking.step("Concat", *taken, axis=0))
    if parts * length != len(numbers):
        bounds = (unpacking.constant(role, np.array([number])) for role, number in (("from", 0), ("to", len(numbers))))
        flat = unpacking.step("Slice", flat, *bounds)
    if step != 1:
        flat = unpacking.step("Mul", flat, unpacking.constant("step", np.array(step, np.float32)))
    flat = unpacking.step("Add", flat, unpacking.constant("lowest", np.array(grid.lowest, np.float32)))
    whole_codes = unpacking.step("Cast", flat, to=int(ir.DataType.INT8))
    unpacking.step("Reshape", whole_codes, unpacking.constant("shape", np.array(codes.shape, np.int64)))
    unpacking.take_over(value)


def _byte(unpacking: Unpacking, number: int) -> ir.Value:
    return unpacking.constant(f"by_{number}", np.array(number, np.uint8))
