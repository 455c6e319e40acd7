"""Between numpy arrays, ONNX element types and torch tensors."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from worker.engine.faults import UserFault

TORCH_TYPES: dict[int, torch.dtype] = {
    int(ir.DataType.FLOAT): torch.float32,
    int(ir.DataType.UINT8): torch.uint8,
    int(ir.DataType.INT8): torch.int8,
    int(ir.DataType.UINT16): torch.uint16,
    int(ir.DataType.INT16): torch.int16,
    int(ir.DataType.INT32): torch.int32,
    int(ir.DataType.INT64): torch.int64,
    int(ir.DataType.BOOL): torch.bool,
    int(ir.DataType.FLOAT16): torch.float16,
    int(ir.DataType.DOUBLE): torch.float64,
    int(ir.DataType.UINT32): torch.uint32,
    int(ir.DataType.UINT64): torch.uint64,
    int(ir.DataType.BFLOAT16): torch.bfloat16,
}


class NotTrainable(UserFault):
    code, title = "not_trainable", "The model cannot be trained"


def torch_type(element_type: int) -> torch.dtype:
    """The dtype of torch for an element type of ONNX, a `TensorProto.DataType`.

    Raises:
        NotTrainable: torch has no such dtype: text, complex numbers, fewer than eight bits.

    """
    if element_type not in TORCH_TYPES:
        raise NotTrainable(
            f"Tensors of the element type {ir.DataType(element_type).name} have no form in torch.",
            "Leave out the passes that train.",
        )
    return TORCH_TYPES[element_type]


def tensor_from(array: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own, on the CPU, of the same shape and values.

    Raises:
        NotTrainable: torch has no such dtype.

    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).reshape(array.shape)
    try:
        # copy() alone would turn 0-d arrays into scalars, and a torch tensor over read-only memory is a trap.
        return torch.from_numpy(np.array(array, order="C", copy=True)).reshape(array.shape)
    except TypeError as error:
        raise NotTrainable(f"Tensors of the dtype {array.dtype} have no form in torch.") from error


def array_from(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values, wherever it lies; a bfloat16 tensor as `ml_dtypes.bfloat16`."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        halves: np.ndarray = tensor.view(torch.int16).numpy()
        return halves.view(ml_dtypes.bfloat16)
    made: np.ndarray = tensor.numpy()
    return made
