"""What post-training quantization with ONNX Runtime's tools needs to know about its kernels.

Unsigned 8-bit activations with signed 8-bit weights, zero point 0, are the one pair with fast kernels on x86.
"""

import onnx

from worker.engine.graph import attribute_of
from worker.engine.preparation import operator_counts

# With a fast 8-bit kernel, or passing 8 bits through. Left out, though the tool could: Softmax (8 times slower than
# float), AveragePool (20 times), LayerNormalization, ReduceMean, Pad and ConvTranspose (no kernel at all).
STATIC_OPERATORS = (
    "Conv",
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Concat",
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "MaxPool",
    "GlobalAveragePool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Resize",
)
# Attention scores and residuals of a transformer lose too much in 8 bits; its weight matrices do not.
TRANSFORMER_OPERATORS = ("MatMul", "Gemm")


def is_transformer(model: onnx.ModelProto) -> bool:
    """Softmax or a fused attention between matrix products, and fewer convolutions than those."""
    counts = operator_counts(model)
    attention = any(counts.get(name, 0) for name in ("Softmax", "Attention", "MultiHeadAttention"))
    normalized = any("LayerNormalization" in name for name in counts) or counts.get("ReduceMean", 0) > 0
    return attention and normalized and counts.get("MatMul", 0) > counts.get("Conv", 0)


def slow_in_int8(model: onnx.ModelProto) -> dict[str, str]:
    """Nodes that run slower in 8 bits than in float, with the reason."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            groups = attribute_of(node, "group", 1)
            weight = shapes.get(node.input[1], [])
            if groups > 1 and len(weight) > 1 and weight[1] > 1:
                found[node.name] = "grouped convolution"
            elif len(weight) not in (0, 4):
                found[node.name] = "convolution that is not 2-D"
        elif node.op_type == "Resize" and _text_attribute(node, "mode", "nearest") != "nearest":
            found[node.name] = "interpolation"
    return found


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model computes in 8 bits already."""
    counts = operator_counts(model)
    return any("Integer" in name or "QuantizeLinear" in name or name.startswith("QLinear") for name in counts)


def _text_attribute(node: onnx.NodeProto, name: str, default: str) -> str:
    return next((attribute.s.decode() for attribute in node.attribute if attribute.name == name), default)
