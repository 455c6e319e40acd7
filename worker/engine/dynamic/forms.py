"""Which nodes ONNX Runtime computes from int8 weights and activations quantized at run time, and why it cannot others.

Products with a weight matrix: com.microsoft DynamicQuantizeMatMul and MatMulIntegerToFloat; LSTM: DynamicQuantizeLSTM;
the runtime's own Attention: QAttention. https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from worker.engine.graph import RUNTIME_DOMAIN
from worker.engine.int8.units import Role, Unit
from worker.engine.nodes import MATRIX_RANK, constant, integer, is_operator, number, opset
from worker.engine.reasons import NO_ACTIVATION

# Before it the standard has no DynamicQuantizeLinear.
LEAST_OPSET = 11
RECURRENT_RANK = 3
MASK, PAST, LAST_SHARED = 3, 4, 5
NO_MATRIX = "no constant float32 matrix of weights"
NOT_FINITE = "NaN or infinity among the weights"
TRANSPOSED = "a Gemm whose left side is transposed"
NO_ROW = "a Gemm that adds something else than a constant row"
BATCH_FIRST = "an LSTM with the batch first"
STANDARD_ATTENTION = "Attention without weights of its own"
OTHER_ATTENTION = "Attention with inputs or attributes that QAttention lacks"
CONVOLUTION = "convolutions quantized at run time are slower than in float"
NO_KERNEL = "it has no int8 kernel"
OLD = f"an opset older than {LEAST_OPSET}"


def units_of(model: ir.Model) -> tuple[list[Unit], dict[str, str]]:
    """Nodes of the main graph that multiply by weights, in its order, and by name why some have no dynamic form."""
    units, reasons = [], {}
    for node in model.graph:
        look = _form(node)
        if look is None:
            continue
        unit = Unit(node, Role.WEIGHTED)
        units.append(unit)
        reason = OLD if opset(model) < LEAST_OPSET else look(node) if unit.sources else NO_ACTIVATION
        if reason is not None:
            reasons[unit.name] = reason
    return units, reasons


def matrix_of(node: ir.Node) -> np.ndarray:
    """float32 `(K, N)`: what a MatMul, Gemm or Attention multiplies by, from the right."""
    weight = constant(node.inputs[1])
    if weight is None:
        raise ValueError(f"the weight of {node.name!r} is no constant")
    if is_operator(node, "Gemm"):
        weight = weight.T if integer(node, "transB", 0) else weight
        return weight * np.float32(number(node, "alpha", 1.0))
    return weight


def row_of(node: ir.Node) -> np.ndarray | None:
    """float32 `(N,)` that a Gemm adds; None where it adds nothing."""
    bias = constant(node.inputs[2]) if len(node.inputs) > MATRIX_RANK else None
    if bias is None:
        return None
    width = matrix_of(node).shape[1]
    return np.broadcast_to(bias.reshape(-1) * np.float32(number(node, "beta", 1.0)), (width,)).astype(np.float32)


def _form(node: ir.Node) -> Callable[[ir.Node], str | None] | None:
    """What says of a node of this kind why it has no dynamic form; None for kinds without weights to multiply by."""
    if node.domain == RUNTIME_DOMAIN:
        return _attention if node.op_type == "Attention" else None
    return STANDARD[node.op_type] if is_operator(node, *STANDARD) else None


def _product(node: ir.Node) -> str | None:
    return _against(constant(node.inputs[1]), MATRIX_RANK)


def _gemm(node: ir.Node) -> str | None:
    if integer(node, "transA", 0):
        return TRANSPOSED
    unfit = _product(node)
    bias = node.inputs[2] if len(node.inputs) > MATRIX_RANK else None
    if unfit is not None or bias is None:
        return unfit
    row = constant(bias)
    return None if row is not None and (row.size == 1 or row.size == row.shape[-1]) else NO_ROW


def _lstm(node: ir.Node) -> str | None:
    if integer(node, "layout", 0):
        return BATCH_FIRST
    unfit = [_against(constant(value), RECURRENT_RANK) for value in node.inputs[1:3]]
    return unfit[0] or unfit[1]


def _attention(node: ir.Node) -> str | None:
    beyond = any(value is not None for value in node.inputs[LAST_SHARED:])
    rotary = integer(node, "do_rotary", 0) or integer(node, "rotary_embedding_dim", 0)
    if beyond or rotary or "qkv_hidden_sizes" in node.attributes or integer(node, "past_present_share_buffer", 0):
        return OTHER_ATTENTION
    return _product(node)


def _against(weight: np.ndarray | None, dimensions: int) -> str | None:
    if weight is None or weight.dtype != np.float32 or weight.ndim != dimensions or not weight.size:
        return NO_MATRIX
    return None if np.isfinite(weight).all() else NOT_FINITE


STANDARD: dict[str, Callable[[ir.Node], str | None]] = {
    "MatMul": _product,
    "Gemm": _gemm,
    "LSTM": _lstm,
    "Attention": lambda _node: STANDARD_ATTENTION,
    "Conv": lambda _node: CONVOLUTION,
    "ConvTranspose": lambda _node: NO_KERNEL,
    "GRU": lambda _node: NO_KERNEL,
    "RNN": lambda _node: NO_KERNEL,
}
