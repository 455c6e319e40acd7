"""The operators that can be trained, known without torch, so that any worker can say at inspection what cannot.

`operators` has a function for each of these, for every opset from 7 on; `Constant` is read when the graph is.
"""

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, defs, shape_inference

from worker.engine.graph import STANDARD_DOMAINS, qualified
from worker.engine.inspection import walk

# Versions of operators that are newer are unknown here, whatever their names.
NEWEST_OPSET = 28

_NAMES = """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad
    Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumProd CumSum DFT DeformConv
    DepthToSpace Det Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf
    IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max
    MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NegativeLogLikelihoodLoss
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scatter ScatterElements ScatterND Selu Shape Shrink
    Sigmoid Sign SimplifiedLayerNormalization Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose
    Trilu Unique Unsqueeze Upsample Where Xor

    com.microsoft.Attention com.microsoft.BiasGelu com.microsoft.EmbedLayerNormalization com.microsoft.FastGelu
    com.microsoft.FusedConv com.microsoft.FusedGemm com.microsoft.FusedMatMul com.microsoft.Gelu
    com.microsoft.MultiHeadAttention com.microsoft.QuickGelu com.microsoft.RotaryEmbedding
    com.microsoft.SkipLayerNormalization com.microsoft.SkipSimplifiedLayerNormalization com.microsoft.TransposeMatMul
"""
CLAIMED = frozenset(_NAMES.split())
HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
COMPUTED_TYPES = HALVES | {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.BOOL,
}
# Inputs that hold what was attended before: such a node generates, one token a call.
PASTS = {"com.microsoft.Attention": (4,), "com.microsoft.MultiHeadAttention": (6, 7, 8, 9)}
# Inputs without which a node is fed keys and values that are packed into another one.
APART = {"com.microsoft.MultiHeadAttention": (1, 2)}
# Of constants that can be weights.
TRAINED_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def holds_weights(model: ModelProto) -> bool:
    """Whether there is a constant of float32 or float64 that has an axis. Without one nothing can be trained; which of
    them are weights, `weights` says.
    """
    nodes = [node for node in walk.nodes(model) if qualified(node) == "Constant"]
    held = [one for node in nodes for one in node.attribute if one.name in ("value", "value_floats")]
    tensors = [tensor for graph in walk.all_graphs(model) for tensor in graph.initializer]
    tensors += [one.t for one in held if one.name == "value"]
    return any(one.floats for one in held) or any(
        tensor.data_type in TRAINED_TYPES and tensor.dims and 0 not in tensor.dims for tensor in tensors
    )


def unsupported(model: ModelProto) -> list[str]:
    """Names of the operators that keep a model from being trained, in alphabetical order; none where it can be.

    An operator counts as well where it is fed text, a sparse tensor, or elements that torch has no arithmetic for, or
    computes in half precision: gradients would vanish in it.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = max((version for domain, version in opsets.items() if domain in STANDARD_DOMAINS), default=1)
    local = {(function.domain, function.name) for function in model.functions}
    types = _types(model)
    nodes = (node for node in walk.nodes(model) if (node.domain, node.op_type) not in local)
    kept_out = (node for node in nodes if not (_is_claimed(node, opset) and _is_fed_numbers(node, types)))
    return sorted({qualified(node) for node in kept_out})


def _is_claimed(node: NodeProto, opset: int) -> bool:
    name = qualified(node)
    if name not in CLAIMED or any(node.input[position : position + 1] != [""] for position in _past(node)):
        return False
    if any("".join(node.input[position : position + 1]) == "" for position in APART.get(name, ())):
        return False
    if name == "Constant":
        return all(
            one.name in ("value", "value_float", "value_floats", "value_int", "value_ints") for one in node.attribute
        )
    if node.domain not in STANDARD_DOMAINS or opset <= NEWEST_OPSET or not defs.has(node.op_type):
        return True
    return bool(defs.get_schema(node.op_type, opset, "").since_version <= NEWEST_OPSET)


def _past(node: NodeProto) -> list[int]:
    return [position for position in PASTS.get(qualified(node), ()) if position < len(node.input)]


def _is_fed_numbers(node: NodeProto, types: dict[str, int]) -> bool:
    """As far as types are known: of inputs, constants and casts, and what shape inference makes of them."""
    read = {types[name] for name in node.input if name in types}
    read |= {one.i for one in node.attribute if one.name == "to"} | {
        one.t.data_type for one in node.attribute if one.HasField("t")
    }
    return read <= COMPUTED_TYPES and (node.op_type == "Cast" or read.isdisjoint(HALVES))


def _types(model: ModelProto) -> dict[str, int]:
    """Element type by name; 0, which is none, for what is no dense tensor."""
    found = {value.name: _element_type(value.type) for value in _inferred(model).value_info if _is_typed(value.type)}
    for graph in walk.all_graphs(model):
        for value in graph.input:
            if value.type.WhichOneof("value") is not None:
                found[value.name] = _element_type(value.type)
        found |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        found |= {sparse.values.name: 0 for sparse in graph.sparse_initializer}
    return found


def _inferred(model: ModelProto) -> GraphProto:
    """The graph with the types of what its nodes make, as far as they can be known."""
    try:
        return shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return model.graph


def _is_typed(kind: TypeProto) -> bool:
    what = kind.WhichOneof("value")
    return what is not None and (what != "tensor_type" or kind.tensor_type.elem_type != TensorProto.UNDEFINED)


def _element_type(kind: TypeProto) -> int:
    return kind.tensor_type.elem_type if kind.WhichOneof("value") == "tensor_type" else 0
