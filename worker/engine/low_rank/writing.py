"""Factors in the place of a weight: two or three nodes where one was. All else of the graph stays."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from worker.engine.low_rank.factoring import Factors
from worker.engine.low_rank.forms import Form
from worker.engine.low_rank.places import weight_of
from worker.engine.nodes import add_initializer, free_name, integers, replace

SUFFIX = "low_rank"


def factor_names(node: str, form: Form) -> list[str]:
    """Of the nodes that stand for `node`, first to last."""
    return [f"{node}/{SUFFIX}_{number + 1}" for number in range(3 if form == "tucker" else 2)]


def write_factors(model: ir.Model, made: Mapping[str, tuple[Form, Factors]]) -> None:
    """Put the factors of each node, by its name, in its place; the weights that nothing reads any more go."""
    graph = model.graph
    for node in list(graph):
        if (node.name or "") in made:
            form, factors = made[node.name or ""]
            weight = weight_of(node)
            replace(graph, node, list(_chain(graph, node, form, factors)))
            _remove(graph, weight)


def _chain(graph: ir.Graph, node: ir.Node, form: Form, factors: Factors) -> Iterator[ir.Node]:
    value, weight = node.inputs[0], weight_of(node)
    names = factor_names(node.name or "", form)
    for number, (name, array) in enumerate(zip(names, factors, strict=True)):
        last = number + 1 == len(factors)
        held = add_initializer(graph, f"{weight.name}/{SUFFIX}_{number + 1}", array)
        inputs = [value, held, *(node.inputs[2:] if last else ())]
        output = ir.Value(name=free_name(graph, f"{node.outputs[0].name}/{SUFFIX}_{number + 1}"))
        operator, attributes = _factor(node, form, number, array)
        yield ir.node(operator, inputs, attributes, outputs=[output], name=name)
        value = output


def _factor(node: ir.Node, form: Form, number: int, array: np.ndarray) -> tuple[str, dict[str, ir.Attr]]:
    """Operator and attributes of one factor. What scales a result or places a window is done once."""
    if form == "matrix":
        # A Gemm without a bias is no Gemm before opset 11.
        return (node.op_type, dict(node.attributes)) if number == 1 else ("MatMul", {})
    attributes = {name: one for name, one in node.attributes.items() if name != "kernel_shape"}
    attributes["kernel_shape"] = _ints("kernel_shape", array.shape[2:])
    window = {"channels": (0,), "spatial": (0, 1), "tucker": (1,)}[form]
    if number not in window:
        for name in ("strides", "pads", "dilations", "auto_pad"):
            attributes.pop(name, None)
    elif form == "spatial":
        attributes |= _along(node, number)
    return "Conv", attributes


def _along(node: ir.Node, axis: int) -> dict[str, ir.Attr]:
    """The attributes of a window that reaches along one axis of space only."""
    found = {}
    for name in ("strides", "dilations"):
        values = integers(node, name, (1, 1))
        found[name] = _ints(name, [value if other == axis else 1 for other, value in enumerate(values)])
    if "pads" in node.attributes:
        values = integers(node, "pads", (0, 0, 0, 0))
        found["pads"] = _ints("pads", [value if other % 2 == axis else 0 for other, value in enumerate(values)])
    return found


def _ints(name: str, values: object) -> ir.Attr:
    return ir.AttrInt64s(name, tuple(int(value) for value in values))  # type: ignore[attr-defined]


def _remove(graph: ir.Graph, weight: ir.Value) -> None:
    if weight.uses():
        return
    node = weight.producer()
    if node is not None:
        graph.remove(node, safe=True)
    else:
        graph.initializers.pop(weight.name or "", None)
