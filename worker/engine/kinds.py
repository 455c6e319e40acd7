"""What kind of model a graph is, where that decides how it should be treated."""

import onnx

from worker.engine.inspection import walk
from worker.engine.preparation import operator_counts

# Parts of the names of operators that compute in 8 bits, or convert to them.
IN_8_BITS = ("Integer", "QuantizeLinear", "QLinear", "QGemm", "QAttention", "DynamicQuantize")


def is_transformer(model: onnx.ModelProto) -> bool:
    """Softmax or a fused attention between matrix products, and fewer convolutions than those."""
    counts = operator_counts(model)
    attention = any(counts.get(name, 0) for name in ("Softmax", "Attention", "MultiHeadAttention"))
    normalized = any("LayerNormalization" in name for name in counts) or counts.get("ReduceMean", 0) > 0
    return attention and normalized and counts.get("MatMul", 0) > counts.get("Conv", 0)


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model computes in 8 bits already, inside its functions too."""
    return any(mark in node.op_type for node in walk.nodes(model) for mark in IN_8_BITS)
