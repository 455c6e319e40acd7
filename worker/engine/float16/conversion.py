"""Turning a graph to float16: every node that may be, with a Cast where float32 begins or ends.

A tensor is made in one type, and converted once, behind what makes it, for all who read it in the other; between two
nodes in float32 nothing is rounded. What goes into subgraphs and comes out of them stays float32: a branch or a loop
hands over what its neighbours expect, whatever is inside. Constants are stored in the types that they are read in.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.float16.constants import narrow
from worker.engine.float16.signatures import Half, complete_types, half_of
from worker.engine.nodes import add_initializer, float32_constant, free_name, is_operator

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


@dataclass
class Converter:
    """One graph being rewritten. Nodes named in `kept` stay in float32; `raised` counts values by constant."""

    model: ir.Model
    kept: Collection[str]
    keep_io: bool
    raised: dict[str, int] = field(default_factory=dict)
    _half: set[ir.Value] = field(default_factory=set)
    """Values that are made in float16."""
    _others: dict[ir.Value, ir.Value] = field(default_factory=dict)
    """Of a value, the same in the other type."""
    _homes: dict[ir.Value, ir.Graph] = field(default_factory=dict)
    """Of an input of a graph, that graph."""

    def convert(self) -> bool:
        """Whether anything was changed."""
        complete_types(self.model)
        graph = self.model.graph
        graphs = [graph, *graph.subgraphs()]
        self._homes = {value: part for part in graphs for value in part.inputs}
        nodes = [node for node in graph.all_nodes() if node.name not in self.kept]
        forms = {node: half_of(node, self.model.opset_imports) for node in nodes}
        if not self.keep_io:
            self._half.update(value for value in graph.inputs if value.dtype == FLOAT)
        for node, form in forms.items():
            self._half.update(node.outputs[position] for position in form.outputs)
        for node in nodes:
            self._typed_by_attribute(node, forms)
        for node in list(graph.all_nodes()):
            self._inputs(node, forms.get(node, Half()))
        for part in graphs:
            self._outputs(part, in_half=part is graph and not self.keep_io)
        for value in self._half:
            value.type = ir.TensorType(FLOAT16)
        return bool(self._half or self._others)

    def _typed_by_attribute(self, node: ir.Node, forms: dict[ir.Node, Half]) -> None:
        """A Cast makes what its readers want, and so does a tensor of one constant that float16 has."""
        output = node.outputs[0]
        wanted = any(use.idx in forms.get(use.node, Half()).inputs for use in output.uses())
        if not wanted or output.dtype != FLOAT:
            return
        if is_operator(node, "Cast"):
            node.attributes["to"] = ir.AttrInt64("to", int(FLOAT16))
            self._half.add(output)
        elif is_operator(node, "ConstantOfShape"):
            filled = node.attributes.get("value")
            values = np.zeros(1, np.float32) if filled is None else filled.as_tensor().numpy()
            half = narrow(values).values
            if np.array_equal(half, values, equal_nan=True):
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(half))
                self._half.add(output)

    def _inputs(self, node: ir.Node, form: Half) -> None:
        if is_operator(node, "Cast"):
            return
        for position, value in enumerate(node.inputs):
            if value is not None and (position in form.inputs) != (value in self._half):
                node.replace_input_with(position, self._other(value))

    def _outputs(self, graph: ir.Graph, in_half: bool) -> None:
        for position, value in enumerate(graph.outputs):
            if value.dtype == FLOAT and isinstance(value.type, ir.TensorType) and (value in self._half) != in_half:
                made = self._other(value)
                graph.outputs[position] = made
                if graph is self.model.graph:
                    name, value.name = value.name, free_name(graph, f"{value.name}_inside")
                    made.name = name

    def _other(self, value: ir.Value) -> ir.Value:
        if value not in self._others:
            self._others[value] = self._narrowed(value) or self._cast(value)
        return self._others[value]

    def _narrowed(self, value: ir.Value) -> ir.Value | None:
        """A float32 constant as a float16 one; None for what is computed."""
        array = float32_constant(value)
        if array is None:
            return None
        narrowed = narrow(array)
        if narrowed.raised:
            self.raised[value.name or ""] = narrowed.raised
        # A subgraph sees the constants of the graph around it.
        return add_initializer(self.model.graph, f"{value.name}_float16", narrowed.values)

    def _cast(self, value: ir.Value) -> ir.Value:
        wanted = FLOAT if value in self._half else FLOAT16
        name = free_name(self.model.graph, f"{value.name}_{'float32' if wanted == FLOAT else 'float16'}")
        output = ir.Value(name=name, type=ir.TensorType(wanted), shape=value.shape)
        node = ir.node("Cast", [value], {"to": int(wanted)}, outputs=[output], name=f"{name}/Cast")
        producer = value.producer()
        if producer is not None and producer.graph is not None:
            producer.graph.insert_after(producer, node)
        else:
            graph = self._homes.get(value, self.model.graph)
            graph.insert_before(graph[0], node)
        return output


@dataclass(frozen=True)
class Conversion:
    """`changed` says whether anything became float16; `raised` how many values, by constant, were too close to 0 for
    float16 and became its smallest.
    """

    changed: bool
    raised: dict[str, int]


def to_float16(model: ir.Model, kept: Collection[str], keep_io: bool) -> Conversion:
    """Rewrite `model` in place; nodes named in `kept` stay in float32, with `keep_io` inputs and outputs do."""
    converter = Converter(model, kept, keep_io)
    return Conversion(converter.convert(), converter.raised)
