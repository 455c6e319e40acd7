"""Whether each tensor of a model is as large as it says, before anything is allocated on its word.

The encoding is that of `TensorProto` in onnx.proto.
"""

import math
from pathlib import Path

from onnx import ModelProto, TensorProto, helper

from worker.engine.inspection import external_data, walk
from worker.engine.model_faults import CorruptModel, ExcessiveExpansion

# ONNX Runtime makes sparse tensors dense at load. Written dense, they could not hold more than this in one file either.
MAX_DENSE_BYTES = 2 << 30
BITS_BELOW_A_BYTE = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
# The repeated field that holds the elements where raw_data does not, and values per element.
TYPED_FIELDS: dict[str, tuple[str, int]] = {
    "FLOAT": ("float_data", 1),
    "COMPLEX64": ("float_data", 2),
    "DOUBLE": ("double_data", 1),
    "COMPLEX128": ("double_data", 2),
    "INT64": ("int64_data", 1),
    "UINT32": ("uint64_data", 1),
    "UINT64": ("uint64_data", 1),
    "STRING": ("string_data", 1),
}
REMEDY = "Export the model again, or copy the file again: it was probably cut short or edited."


def check_tensors(model: ModelProto, folder: Path) -> None:
    """Check every tensor of the model; `folder` holds the external data.

    Raises:
        CorruptModel: a tensor's shape does not match its data, or its type is unknown.
        ExcessiveExpansion: sparse tensors that are small in the file and huge in memory.
        UserFault: as `external_data.check_external`.

    """
    for tensor in walk.tensors(model):
        if external_data.is_external(tensor):
            external_data.check_external(tensor, tensor_bytes(tensor), folder)
        else:
            _check_inline(tensor)
    dense_bytes = sum(
        _element_count(sparse.values.name, list(sparse.dims)) * max(1, _bits(sparse.values) // 8)
        for sparse in walk.sparse_tensors(model)
    )
    if dense_bytes > MAX_DENSE_BYTES:
        raise ExcessiveExpansion(
            f"The sparse tensors take {dense_bytes:,} bytes once dense; {MAX_DENSE_BYTES:,} is the most accepted.",
            "Store the weights as dense tensors.",
        )


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of the elements in raw form, by dims and type alone. Raises CorruptModel where these make no sense."""
    return math.ceil(_element_count(tensor.name, list(tensor.dims)) * _bits(tensor) / 8)


def _element_count(name: str, dims: list[int]) -> int:
    if min(dims, default=0) < 0:
        raise CorruptModel(f"Tensor {name!r} has the shape {dims}.", REMEDY)
    return math.prod(dims)


def _type_name(tensor: TensorProto) -> str:
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise CorruptModel(f"Tensor {tensor.name!r} has the unknown element type {tensor.data_type}.", REMEDY)
    return str(TensorProto.DataType.Name(tensor.data_type))


def _bits(tensor: TensorProto) -> int:
    name = _type_name(tensor)
    if name in BITS_BELOW_A_BYTE:
        return BITS_BELOW_A_BYTE[name]
    if name == "STRING":
        return 8
    return int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize) * 8


def _check_inline(tensor: TensorProto) -> None:
    name = _type_name(tensor)
    count = _element_count(tensor.name, list(tensor.dims))
    if tensor.HasField("raw_data"):
        matches = len(tensor.raw_data) == tensor_bytes(tensor) and name != "STRING"
    elif name in BITS_BELOW_A_BYTE:
        # Writers differ in how many elements they put into one int32, never more than its 32 bits hold.
        matches = count <= len(tensor.int32_data) * 32 // BITS_BELOW_A_BYTE[name]
    else:
        field, values = TYPED_FIELDS.get(name, ("int32_data", 1))
        matches = len(getattr(tensor, field)) == count * values
    if not matches:
        raise CorruptModel(f"Tensor {tensor.name!r} declares {name} {list(tensor.dims)} and holds other data.", REMEDY)
