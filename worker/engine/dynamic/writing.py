"""Writing units into a graph in their dynamic form.

A tensor that several products read is quantized once, by DynamicQuantizeLinear; a product that reads one alone does
that itself, as the runtime would make of the pair. Biases are added in float32, by the product.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.dynamic.forms import MASK, PAST, matrix_of, row_of, units_of
from worker.engine.dynamic.placement import CONVERSION, DynamicPlacement, readers_of
from worker.engine.graph import RUNTIME_DOMAIN
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.choosing import Build
from worker.engine.int8.fused_products import Quantized, integer_product
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_addition, bias_of
from worker.engine.int8.rounding import Rounding, codes_of
from worker.engine.int8.units import Unit
from worker.engine.model_file import ModelFile
from worker.engine.nodes import add_initializer, constant, free_name, integer, is_operator, number, replace

# No bias is quantized, so none asks for a scale that holds it.
ANY_SCALE = np.zeros((), np.float32)
LSTM_WEIGHTS = (1, 2)
LSTM_INPUTS = 8


@dataclass
class Writer:
    """One graph being rewritten."""

    graph: ir.Graph
    placement: Placement
    rounding: Rounding
    _readers: dict[str, list[Unit]] = field(default_factory=dict)
    _activations: dict[ir.Value, Quantized] = field(default_factory=dict)
    _matrices: dict[tuple[ir.Value, int, float], tuple[ir.Value, ir.Value]] = field(default_factory=dict)

    def write(self) -> None:
        forms: dict[str, Callable[[Unit], None]] = {"LSTM": self._lstm, "Attention": self._attention}
        self._readers = readers_of(self.placement)
        for unit in self.placement.in_int8:
            forms.get(unit.node.op_type, self._product)(unit)

    def _product(self, unit: Unit) -> None:
        node, (source,) = unit.node, unit.sources
        codes, scale = self._matrix(unit)
        add = bias_addition(unit) if is_operator(node, "MatMul") else None
        if add is not None and add.graph is not self.graph:
            add = None
        row = row_of(node) if is_operator(node, "Gemm") else None if add is None else bias_of(unit)
        bias = None if row is None else add_initializer(self.graph, f"{unit.name}/bias", row)
        if len(self._readers[source.name or ""]) > 1:
            weight = Quantized(codes, scale, None)
            made = integer_product(unit.name, self._quantized(source, node), weight, bias)
        else:
            inputs = [source, codes, scale, *([None, bias] if bias is not None else [])]
            output = ir.Value(name=f"{unit.name}/DynamicQuantizeMatMul")
            made = ir.node("DynamicQuantizeMatMul", inputs, outputs=[output], name=unit.name, domain=RUNTIME_DOMAIN)
        replace(self.graph, add or node, [made])
        if add is not None:
            self.graph.remove(node, safe=True)

    def _lstm(self, unit: Unit) -> None:
        """Weights `(directions, 4 x hidden, depth)` are transposed, their scales `(directions, 4 x hidden)`."""
        node = unit.node
        inputs = [*node.inputs, *[None] * (LSTM_INPUTS - len(node.inputs))]
        parameters: list[ir.Value] = []
        for index in LSTM_WEIGHTS:
            weight = _constant(node.inputs[index])
            codes = codes_of(weight.reshape(-1, weight.shape[2]), 0, self.rounding, None, ANY_SCALE)
            stem = f"{unit.name}/{'WR'[index - 1]}"
            inputs[index] = self._constant(f"{stem}_quantized", codes.codes.reshape(weight.shape).transpose(0, 2, 1))
            scale = codes.scale.reshape(weight.shape[:2])
            parameters.append(self._constant(f"{stem}_scale", scale))
            parameters.append(self._constant(f"{stem}_zero_point", np.zeros(scale.shape, np.int8)))
        attributes = [attribute for name, attribute in node.attributes.items() if name != "layout"]
        if "hidden_size" not in node.attributes:
            attributes.append(ir.AttrInt64("hidden_size", int(_constant(node.inputs[2]).shape[2])))
        self._replace(node, "DynamicQuantizeLSTM", [*inputs, *parameters], attributes)

    def _attention(self, unit: Unit) -> None:
        node, (source,) = unit.node, unit.sources
        codes, scale = self._matrix(unit)
        activation, width = self._quantized(source, node), unit.channel_count
        inputs = [*node.inputs, *[None] * (PAST + 1 - len(node.inputs))]
        bias = inputs[2] or self._constant(f"{unit.name}/bias", np.zeros(width, np.float32))
        zeros = self._constant(f"{unit.name}/zero_point", np.zeros(width, np.int8))
        parameters = [activation.codes, codes, bias, activation.scale, scale, inputs[MASK], activation.zero_point]
        self._replace(node, "QAttention", [*parameters, zeros, inputs[PAST]], list(node.attributes.values()))

    def _matrix(self, unit: Unit) -> tuple[ir.Value, ir.Value]:
        """Codes `(K, N)` and scales `(N,)`, once for all who read the same matrix in the same way."""
        key = unit.weight, integer(unit.node, "transB", 0), number(unit.node, "alpha", 1.0)
        if key not in self._matrices:
            codes = codes_of(matrix_of(unit.node), 1, self.rounding, None, ANY_SCALE)
            stem = f"{unit.name}/{unit.weight.name}"
            self._matrices[key] = (
                self._constant(f"{stem}_quantized", codes.codes),
                self._constant(f"{stem}_scale", codes.scale),
            )
        return self._matrices[key]

    def _quantized(self, source: ir.Value, before: ir.Node) -> Quantized:
        """The tensor in 8 bits, from the first who reads it on."""
        if source not in self._activations:
            names = [free_name(self.graph, f"{source.name}_{role}") for role in ("quantized", "scale", "zero_point")]
            node = ir.node(
                "DynamicQuantizeLinear",
                [source],
                outputs=[ir.Value(name=name) for name in names],
                name=CONVERSION.format(source.name),
            )
            self.graph.insert_before(before, node)
            self._activations[source] = Quantized(*node.outputs)
        return self._activations[source]

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.graph, name, array)

    def _replace(self, node: ir.Node, operator: str, inputs: list[ir.Value | None], attributes: list[ir.Attr]) -> None:
        while inputs[-1] is None:
            inputs.pop()
        outputs = [ir.Value(name=value.name and f"{node.name}/{value.name}") for value in node.outputs]
        made = ir.Node(RUNTIME_DOMAIN, operator, inputs, attributes, outputs=outputs, name=node.name)
        replace(self.graph, node, [made])


def write_dynamic(model: ir.Model, placement: Placement, rounding: Rounding) -> None:
    """Rewrite `model`, whose units `placement` names, in place."""
    Writer(model.graph, placement, rounding).write()
    if placement.quantized:
        model.opset_imports.setdefault(RUNTIME_DOMAIN, 1)


def dynamic_builder(prepared: ModelFile, rounding: Rounding) -> Build:
    """A function that writes a placement of the prepared model into a folder."""

    def build(placement: Placement, folder: Path) -> ModelFile:
        model = read_graph(prepared)
        units, _ = units_of(model)
        write_dynamic(model, DynamicPlacement.of(units, placement.quantized), rounding)
        return save_graph(model, folder)

    return build


def _constant(value: ir.Value | None) -> np.ndarray:
    array = constant(value)
    if array is None:
        raise ValueError(f"{value and value.name!r} is no constant")
    return array
