"""Inputs and outputs as the API describes them."""

import onnxruntime
from onnx import GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto, helper

from app.models.inspection import TensorSpec

Dimension = int | str | None
# ONNX Runtime's names where the file leaves a type to be inferred.
RUNTIME_DTYPES = {"float": "float32", "double": "float64"}


def input_specs(model: ModelProto) -> list[TensorSpec]:
    """What a call must feed. Initializers are no inputs, even where old files list them among those."""
    weights = initializer_names(model.graph)
    return [_spec(value) for value in model.graph.input if value.name not in weights]


def output_specs(model: ModelProto, session: onnxruntime.InferenceSession) -> list[TensorSpec]:
    """What a call returns; types that the file omits are those that ONNX Runtime inferred."""
    inferred = {value.name: value for value in session.get_outputs()}
    return [
        _spec(value) if value.type.WhichOneof("value") else _inferred(inferred[value.name])
        for value in model.graph.output
    ]


def initializer_names(graph: GraphProto) -> set[str]:
    """Names of the weights, sparse ones included."""
    return {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}


def dtype_name(element_type: int) -> str:
    """As numpy (or ml_dtypes) names it, or `string`."""
    if element_type == TensorProto.STRING:
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(element_type).name)


def dimensions(type_proto: TypeProto) -> list[Dimension] | None:
    """One entry an axis; None where the rank is unknown. Negative sizes stand for unknown in old files."""
    tensor = type_proto.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        (dim.dim_value if dim.dim_value >= 0 else None) if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    ]


def _spec(value: ValueInfoProto) -> TensorSpec:
    if value.type.WhichOneof("value") != "tensor_type":
        return TensorSpec(name=value.name, dtype=_compound(value.type), shape=None)
    dtype = dtype_name(value.type.tensor_type.elem_type)
    return TensorSpec(name=value.name, dtype=dtype, shape=dimensions(value.type))


def _compound(type_proto: TypeProto) -> str:
    """Types that are no tensors, written as ONNX Runtime writes them: `seq(map(int64,float32))`."""
    kind = type_proto.WhichOneof("value")
    if kind == "tensor_type":
        return dtype_name(type_proto.tensor_type.elem_type)
    if kind == "sequence_type":
        return f"seq({_compound(type_proto.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({_compound(type_proto.optional_type.elem_type)})"
    if kind == "map_type":
        key = dtype_name(type_proto.map_type.key_type)
        return f"map({key},{_compound(type_proto.map_type.value_type)})"
    return str(kind)


def _inferred(value: onnxruntime.NodeArg) -> TensorSpec:
    element = value.type.removeprefix("tensor(").removesuffix(")")
    # The runtime writes an unknown rank and a scalar alike, as no axes.
    shape = [size or None for size in value.shape] or None
    return TensorSpec(name=value.name, dtype=RUNTIME_DTYPES.get(element, element), shape=shape)
