"""Writing weights into a graph in few bits, with the nodes that turn them back into float32.

Those nodes read constants alone, so ONNX Runtime runs them once, when it loads the file, and the kernels behind them
are the float ones that they were. They are of opset 13 at most: what is in 4 bits is taken out of its byte by shifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from worker.engine.affine import Affine, signed
from worker.engine.float16.halves import HALVES
from worker.engine.graph import attribute_of
from worker.engine.nodes import MATRIX_RANK, add_initializer, integer, is_operator, replace
from worker.engine.weight_only.blocks import SLAB_ELEMENTS, Blocks
from worker.engine.weight_only.places import Place

INTEGERS = {8: np.int8, 16: np.int16}
FOUR_BITS = 4
# Of BitShift.
LEAST_SHIFT_OPSET = 11
# The code of 4 bits in the middle, and what moving one into the upper half of a byte multiplies it by.
MIDDLE, RAISED = np.uint8(8), np.float32(16)
SMALL_INTEGERS = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT16})
FLOATS = HALVES | {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


@dataclass(frozen=True)
class Codes:
    """`codes` int8 or int16 of the weight's shape; `scale` float32 of its rank, of size 1 where an axis shares one."""

    codes: np.ndarray
    scale: np.ndarray

    def dequantize(self) -> np.ndarray:
        """float32 of the weight's shape."""
        values: np.ndarray = self.codes * self.scale
        return values.astype(np.float32)


@dataclass
class Unpacking:
    """Nodes under construction that make float32 of constants; their names begin with `stem`."""

    graph: ir.Graph
    stem: str
    nodes: list[ir.Node] = field(default_factory=list)

    def constant(self, role: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.graph, f"{self.stem}/{role}", array)

    def step(self, operator: str, *inputs: ir.Value | None, **attributes: int | str | list[int]) -> ir.Value:
        """What one more node makes of `inputs`."""
        name = f"{self.stem}/{operator}_{len(self.nodes)}"
        node = ir.node(operator, inputs, attributes, outputs=[ir.Value(name=name)], name=name)
        self.nodes.append(node)
        return node.outputs[0]

    def to_float(self, value: ir.Value) -> ir.Value:
        return self.step("Cast", value, to=int(ir.DataType.FLOAT))

    def take_over(self, weight: ir.Value) -> None:
        """Let every reader of a constant read what the last node makes."""
        made = self.nodes[-1].outputs[0]
        made.shape, made.type = weight.shape, weight.type
        self.graph.insert_before(self.graph[0], self.nodes)
        weight.replace_all_uses_with(made)


def encode(values: np.ndarray, kept: Sequence[int], bits: int) -> Codes:
    """Symmetric codes of a float32 tensor; every index along the axes `kept` has a scale of its own."""
    others = tuple(axis for axis in range(values.ndim) if axis not in kept)
    largest = np.maximum(values.max(axis=others, keepdims=True), -values.min(axis=others, keepdims=True))
    affine = signed(largest, bits)
    codes = np.empty(values.shape, INTEGERS[bits])
    step = max(1, SLAB_ELEMENTS * len(values) // values.size)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        own = part if len(affine.scale) == len(values) else slice(None)
        slab = Affine(affine.scale[own], affine.zero_point[own], affine.lowest, affine.highest)
        codes[part] = slab.quantize(values[part])
    return Codes(codes, affine.scale)


def write_codes(graph: ir.Graph, place: Place, codes: Codes) -> None:
    """Every reader of the weight reads codes * scale."""
    unpacking = Unpacking(graph, place.name)
    integers = unpacking.to_float(unpacking.constant("codes", codes.codes))
    unpacking.step("Mul", integers, unpacking.constant("scale", codes.scale))
    unpacking.take_over(graph.initializers[place.name])


def write_table(graph: ir.Graph, place: Place, codes: Codes) -> None:
    """A Gather of the table reads rows of codes and scales them; who reads all of the table reads it unpacked."""
    value, (axis,) = graph.initializers[place.name], place.kept
    whole = Unpacking(graph, place.name)
    table, scale = whole.constant("codes", codes.codes), whole.constant("scale", codes.scale)
    for use in sorted(value.uses(), key=lambda use: (use.node.name or "", use.idx)):
        node = use.node
        if is_operator(node, "Gather") and integer(node, "axis", 0) % codes.codes.ndim == axis:
            rows = Unpacking(graph, f"{node.name}/{place.name}")
            picked = rows.to_float(rows.step("Gather", table, node.inputs[1], axis=axis))
            rows.step("Mul", picked, rows.step("Gather", scale, node.inputs[1], axis=axis))
            replace(graph, node, rows.nodes)
    if value.uses():
        whole.step("Mul", whole.to_float(table), scale)
        whole.take_over(value)


def write_blocks(graph: ir.Graph, place: Place, blocks: Blocks) -> None:
    """Every reader of the matrix reads scale * (q - zero_point), less the padding."""
    (depth, width), by_rows = blocks.shape, place.kept == (1,)
    unpacking = Unpacking(graph, place.name)
    step, constant = unpacking.step, unpacking.constant
    shape = [-1, blocks.block_size, width] if by_rows else [width, -1, blocks.block_size]
    codes = step("Reshape", _raised_codes(unpacking, blocks, by_rows), constant("blocks", np.array(shape)))
    values = unpacking.to_float(codes)
    if blocks.zero_points is not None:
        zeros = ((blocks.zeros() ^ MIDDLE) << FOUR_BITS).view(np.int8)
        values = step("Sub", values, unpacking.to_float(constant("zero_points", _beside(zeros, by_rows))))
    values = step("Mul", values, constant("scale", _beside(blocks.scales / RAISED, by_rows)))
    values = step("Reshape", values, constant("shape", np.array([-1, width] if by_rows else [width, -1])))
    if blocks.padded_rows != depth:
        bounds = (("from", 0), ("to", depth), ("axis", 0 if by_rows else 1))
        step("Slice", values, *(constant(role, np.array([number])) for role, number in bounds))
    unpacking.take_over(graph.initializers[place.name])


def _raised_codes(unpacking: Unpacking, blocks: Blocks, by_rows: bool) -> ir.Value:
    """16 (q - 8) as int8, of the padded matrix's shape, from half as many bytes.

    A byte holds q - 8 of two rows that lie half the matrix apart, each as its two's complement in 4 bits; moved into
    the upper half of a byte of their own they are 16 times that. Few steps, in bytes: the runtime keeps what each one
    makes until all of the file is loaded.
    """
    first, second = np.split(blocks.codes() ^ MIDDLE, 2)
    both = first | second << FOUR_BITS
    packed = unpacking.constant("packed", both if by_rows else both.T)
    four = unpacking.constant("four", np.array(FOUR_BITS, np.uint8))
    low = unpacking.step("BitShift", packed, four, direction="LEFT")
    high = unpacking.step("BitShift", packed, four, direction="RIGHT")
    high = unpacking.step("BitShift", high, four, direction="LEFT")
    codes = unpacking.step("Concat", low, high, axis=0 if by_rows else 1)
    return unpacking.step("Cast", codes, to=int(ir.DataType.INT8))


def _beside(values: np.ndarray, by_rows: bool) -> np.ndarray:
    """`(N, B)` so that it broadcasts against blocks: `(B, 1, N)` or `(N, B, 1)`."""
    return values.T[:, None, :] if by_rows else values[..., None]


def unpacks_when_loaded(model: onnx.ModelProto, halves: bool) -> bool:
    """Whether the file holds weights in few bits that folding its constants would turn back into float32; with `halves`
    those in half precision are such.

    They are shifted out of their bytes, or are matrices and filters that become floats: a mask that becomes bool is
    none, nor is a number.
    """
    kinds = SMALL_INTEGERS | HALVES if halves else SMALL_INTEGERS
    stored = {tensor.name: tensor.dims for tensor in model.graph.initializer if tensor.data_type in kinds}
    wide = {name for name, dims in stored.items() if sum(size > 1 for size in dims) >= MATRIX_RANK}
    return any(
        (node.op_type == "BitShift" and node.input[0] in stored)
        or (node.op_type == "Cast" and node.input[0] in wide and attribute_of(node, "to", 0) in FLOATS)
        for node in model.graph.node
    )


def constant_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that compute from constants alone, which ONNX Runtime runs once, when it loads the file."""
    known = {tensor.name for tensor in model.graph.initializer}
    names = set()
    for node in model.graph.node:
        if node.input and all(name in known for name in node.input if name):
            known.update(node.output)
            names.add(node.name)
    return names
