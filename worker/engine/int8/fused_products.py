"""Products that hand out float32, as one node with their bias: com.microsoft MatMulIntegerToFloat.

From DequantizeLinear and MatMul the runtime makes that node by itself, but leaves the Add of the bias behind it as a
pass over the whole result. https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph import RUNTIME_DOMAIN
from worker.engine.nodes import add_initializer, constant, is_operator, only_reader, replace

OPERATOR = "MatMulIntegerToFloat"


@dataclass(frozen=True)
class Quantized:
    """A tensor in 8 bits; without a zero point, 0 is."""

    codes: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None


def fuse_products(model: ir.Model) -> int:
    """Every MatMul of a dequantized activation by a dequantized matrix whose one reader adds a constant row."""
    fused = 0
    for node in list(model.graph):
        add = only_reader(node.outputs[0]) if is_operator(node, "MatMul") else None
        if add is None or not is_operator(add, "Add") or add.graph is not model.graph:
            continue
        activation, weight = (_quantized(value) for value in node.inputs[:2])
        bias = next((array for array in map(constant, add.inputs) if array is not None), None)
        if activation is None or weight is None or bias is None or weight.codes.const_value is None:
            continue
        columns = weight.codes.const_value.shape[-1]
        if bias.shape != (columns,):
            continue
        _fuse(model.graph, node, add, activation, weight, bias)
        fused += 1
    if fused:
        model.opset_imports.setdefault(RUNTIME_DOMAIN, 1)
    return fused


def _fuse(
    graph: ir.Graph, node: ir.Node, add: ir.Node, activation: Quantized, weight: Quantized, bias: np.ndarray
) -> None:
    made = integer_product(node.name or "", activation, weight, add_initializer(graph, f"{node.name}/added", bias))
    replace(graph, add, [made])
    graph.remove(node, safe=True)


def integer_product(name: str, activation: Quantized, weight: Quantized, bias: ir.Value | None) -> ir.Node:
    """float32 of 8 bits times 8 bits, plus `bias` `(N,)`; no node of a graph yet."""
    inputs = [activation.codes, weight.codes, activation.scale, weight.scale, activation.zero_point, weight.zero_point]
    inputs.append(bias)
    while inputs[-1] is None:
        inputs.pop()
    output = ir.Value(name=f"{name}/{OPERATOR}")
    return ir.node(OPERATOR, inputs, outputs=[output], name=name, domain=RUNTIME_DOMAIN)


def _quantized(value: ir.Value | None) -> Quantized | None:
    producer = value.producer() if value is not None else None
    if producer is None or not is_operator(producer, "DequantizeLinear") or len(producer.inputs) < 3:
        return None
    codes, scale, zero_point = producer.inputs[:3]
    if codes is None or scale is None or zero_point is None:
        return None
    zeros = constant(zero_point)
    # A zero point of 0 for each column is work for the kernel all the same.
    return Quantized(codes, scale, None if zeros is not None and not zeros.any() else zero_point)
