"""Inputs and outputs as the API describes them."""

import re

import onnxruntime
from onnx import ModelProto, TypeProto, ValueInfoProto

from app.models.inspection import TensorSpec
from worker.engine.graph import dtype_name, face_of, values_to_feed

# ONNX Runtime's names where the file leaves a type to be inferred.
RUNTIME_DTYPES = {"float": "float32", "double": "float64"}


def input_specs(model: ModelProto) -> list[TensorSpec]:
    """What a call must feed. Initializers are no inputs, even where old files list them among those."""
    return [_spec(value) for value in values_to_feed(model.graph)]


def output_specs(model: ModelProto, session: onnxruntime.InferenceSession) -> list[TensorSpec]:
    """What a call returns; types that the file omits are those that ONNX Runtime inferred."""
    inferred = {value.name: value for value in session.get_outputs()}
    return [
        _spec(value) if value.type.WhichOneof("value") else _inferred(inferred[value.name])
        for value in model.graph.output
    ]


def _spec(value: ValueInfoProto) -> TensorSpec:
    if value.type.WhichOneof("value") != "tensor_type":
        return TensorSpec(name=value.name, dtype=_compound(value.type), shape=None)
    face = face_of(value)
    return TensorSpec(name=face.name, dtype=face.dtype, shape=None if face.shape is None else list(face.shape))


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
    dtype = re.sub(r"\btensor\((\w+)\)", lambda found: RUNTIME_DTYPES.get(found[1], found[1]), value.type)
    # The runtime writes an unknown rank and a scalar alike, as no axes.
    shape = [None if size == "" else size for size in value.shape] or None
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)
