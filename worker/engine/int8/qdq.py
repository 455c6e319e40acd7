"""Writing a placement into a graph as QuantizeLinear and DequantizeLinear, so that the runtime fuses every unit.

What it wants: DQ on every input of a node and Q alone on its output; weights int8 with zero point 0; biases int32 with
the scale of input times weight. A tensor that a float node makes and float nodes read as well keeps its float readers.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.affine import Affine, unsigned
from worker.engine.graph import RUNTIME_DOMAIN
from worker.engine.int8.placement import Placement
from worker.engine.int8.units import Role, Unit
from worker.engine.int8.weights import Codes, bias_codes
from worker.engine.nodes import add_initializer, constant, free_name, is_operator, only_reader, opset, rank

# Opsets whose QuantizeLinear ONNX Runtime has, with an axis. At others it has its own, which it fuses alike.
STANDARD_OPSETS = range(13, 28)


class MissingRange(KeyError):
    """A tensor is to be quantized whose range nobody measured."""


@dataclass
class Writer:
    """One graph being rewritten: `maps` by name of the activation, `codes` by name of the unit."""

    graph: ir.Graph
    placement: Placement
    maps: dict[str, Affine]
    codes: dict[str, Codes]
    biases: dict[str, np.ndarray]
    domain: str = ""
    """Of the operators QuantizeLinear and DequantizeLinear."""
    _scales: dict[ir.Value, tuple[ir.Value, ir.Value]] = field(default_factory=dict)
    _stored: dict[int, list[ir.Value]] = field(default_factory=dict)
    """Codes, scale and zero point as constants, by the identity of one of `codes`."""

    def write(self) -> None:
        # Read off the graph before it is rewritten: a constant behind a DequantizeLinear looks like an activation.
        activations, _made_in_int8 = self.placement.tensors, self.placement.made_in_int8
        for unit in self.placement.in_int8:
            if unit.node.op_type == "MatMul" and unit.name in self.biases:
                self._added_bias(unit)
        for unit in self.placement.in_int8:
            if unit.role is Role.WEIGHTED:
                self._weights(unit)
            elif unit.role is Role.ARITHMETIC:
                self._constants(unit)
        for value in activations:
            self._activation(value)

    def _activation(self, value: ir.Value) -> None:
        """Q and DQ behind one tensor. Who reads it in 8 bits reads the DQ; where 8 bits made it, everybody does."""
        made_in_int8 = value in self.placement.made_in_int8
        readers = [use for use in value.uses() if made_in_int8 or self.placement.reads_in_int8(use.node)]
        name = value.name or ""
        parameters = self._parameters(value)
        quantize = self._node("QuantizeLinear", [value, *parameters], f"{name}_quantized", ir.DataType.UINT8)
        dequantize = self._node(
            "DequantizeLinear", [quantize.outputs[0], *parameters], f"{name}_dequantized", ir.DataType.FLOAT
        )
        made = dequantize.outputs[0]
        for use in readers:
            use.node.replace_input_with(use.idx, made)
        producer = value.producer()
        if producer is None:
            first = next(iter(self.graph))
            self.graph.insert_before(first, [quantize, dequantize])
        else:
            self.graph.insert_after(producer, [quantize, dequantize])
        if made_in_int8 and value.is_graph_output():
            self._hand_out(value, made)

    def _hand_out(self, value: ir.Value, made: ir.Value) -> None:
        """Let the DQ's output be the graph's, under the name that it had."""
        name = value.name
        value.name = free_name(self.graph, f"{name}_unquantized")
        made.name = name
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = made

    def _parameters(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        root = self.placement.roots[value]
        if root not in self._scales:
            if root.name not in self.maps:
                raise MissingRange(root.name)
            affine = self.maps[root.name]
            zero_point = affine.zero_point.astype(np.uint8)
            self._scales[root] = (
                add_initializer(self.graph, f"{root.name}_scale", affine.scale),
                add_initializer(self.graph, f"{root.name}_zero_point", zero_point),
            )
        return self._scales[root]

    def _weights(self, unit: Unit) -> None:
        codes, weight = self.codes[unit.name], unit.weight
        # What several units read is stored once.
        if id(codes) not in self._stored:
            self._stored[id(codes)] = self._symmetric(f"{unit.name}/{weight.name}", codes.codes, codes.scale)
        self._constant_input(unit, 1, self._stored[id(codes)], codes.axis)
        if unit.node.op_type == "MatMul":
            return
        bias = self.biases.get(unit.name)
        if bias is None and unit.bias is not None:
            bias = constant(unit.bias)
        if bias is None:
            return
        input_scale = float(self.maps[self.placement.roots[unit.sources[0]].name or ""].scale)
        self._constant_input(
            unit, 2, self._symmetric(f"{unit.name}/bias", *bias_codes(bias.reshape(-1), input_scale, codes)), 0
        )

    def _symmetric(self, stem: str, codes: np.ndarray, scale: np.ndarray) -> list[ir.Value]:
        """Codes with zero point 0. Kernels are faster where channels that share a scale `(C,)` say so by one number."""
        scale = scale[0] if bool((scale == scale[:1]).all()) else scale
        return self._stored_as(stem, codes, scale, np.zeros(scale.shape, codes.dtype))

    def _stored_as(self, stem: str, codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> list[ir.Value]:
        named = {"quantized": codes, "scale": scale, "zero_point": zero_point}
        return [add_initializer(self.graph, f"{stem}_{name}", array) for name, array in named.items()]

    def _added_bias(self, unit: Unit) -> None:
        """A MatMul has no bias; the Add behind it may serve."""
        add = bias_addition(unit)
        if add is not None:
            index = next(index for index, value in enumerate(add.inputs) if constant(value) is not None)
            bias = add_initializer(self.graph, f"{unit.name}/bias", self.biases[unit.name])
            add.replace_input_with(index, bias)

    def _constants(self, unit: Unit) -> None:
        """Constant operands of Add, Mul and Concat: 8 bits over their own range."""
        for index, value in enumerate(unit.node.inputs):
            array = constant(value)
            if array is not None and value is not None:
                affine = unsigned(float(array.min(initial=0)), float(array.max(initial=0)))
                codes = affine.quantize(array).astype(np.uint8)
                stem, zero_point = f"{unit.name}/{value.name}", affine.zero_point.astype(np.uint8)
                self._constant_input(unit, index, self._stored_as(stem, codes, affine.scale, zero_point), 0)

    def _constant_input(self, unit: Unit, index: int, constants: list[ir.Value], axis: int) -> None:
        """Let `unit` read codes, scale and zero point through a DQ; `axis` is that of a scale for each channel."""
        of_all = rank(constants[1]) == 0
        name = f"{(constants[0].name or '').removesuffix('_quantized')}_dequantized"
        node = self._node("DequantizeLinear", constants, name, ir.DataType.FLOAT, None if of_all else axis)
        self.graph.insert_before(unit.node, node)
        if index >= len(unit.node.inputs):
            unit.node.resize_inputs(index + 1)
        unit.node.replace_input_with(index, node.outputs[0])

    def _node(
        self, operator: str, inputs: list[ir.Value], name: str, dtype: ir.DataType, axis: int | None = None
    ) -> ir.Node:
        unique = free_name(self.graph, name)
        output = ir.Value(name=unique, type=ir.TensorType(dtype), shape=inputs[0].shape)
        attributes = {} if axis is None else {"axis": axis}
        return ir.node(operator, inputs, attributes, domain=self.domain, outputs=[output], name=f"{unique}_{operator}")


def write_placement(
    model: ir.Model,
    placement: Placement,
    maps: dict[str, Affine],
    codes: dict[str, Codes],
    biases: dict[str, np.ndarray] | None = None,
) -> None:
    """Rewrite `model`, whose units `placement` names, in place. `biases` `(C,)` float32 replace those of their units.

    Raises:
        MissingRange: `maps` lacks a tensor that the placement quantizes.

    """
    standard = opset(model) in STANDARD_OPSETS
    if not standard:
        model.opset_imports[RUNTIME_DOMAIN] = 1
    Writer(model.graph, placement, maps, codes, biases or {}, "" if standard else RUNTIME_DOMAIN).write()


def bias_addition(unit: Unit) -> ir.Node | None:
    """The Add of a constant row `(C,)` that is the one reader of a MatMul."""
    reader = only_reader(unit.node.outputs[0])
    if reader is None or not is_operator(reader, "Add"):
        return None
    arrays = [array for array in map(constant, reader.inputs) if array is not None]
    return reader if len(arrays) == 1 and arrays[0].shape == (unit.channel_count,) else None


def bias_of(unit: Unit) -> np.ndarray | None:
    """float32 `(C,)` that is added to what a weighted unit computes; None where nothing can be."""
    if unit.node.op_type == "MatMul":
        add = bias_addition(unit)
        return None if add is None else next(array for array in map(constant, add.inputs) if array is not None)
    bias = constant(unit.bias)
    return np.zeros(unit.channel_count, np.float32) if bias is None else bias.reshape(-1)
