"""New values for constants of a user's file: all else stays as it is, byte for byte."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from worker.engine.graph import STANDARD_DOMAINS
from worker.engine.model_file import ModelFile


def overwrite(model: ModelFile, arrays: Mapping[str, np.ndarray], folder: Path) -> ModelFile:
    """A copy of `model` in the empty `folder` with `arrays` under their names, each in the dtype that the file has.

    Raises:
        ValueError: the model has no constant of a name, or one of another shape.

    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.files():
        shutil.copyfile(file, folder / file.name)
    made = ModelFile(folder / model.path.name)
    proto = model.structure()
    tensors = dict(constants_of(proto.graph))
    missing = sorted(arrays.keys() - tensors.keys())
    if missing:
        raise ValueError(f"the model has no constants named {missing[:5]}")
    shared = Counter(_place(tensor) for tensor in tensors.values() if _is_external(tensor))
    changed = [_replaced(tensors[name], array, folder, shared) for name, array in arrays.items()]
    if any(changed):
        made.path.write_bytes(proto.SerializeToString(deterministic=True))
    return made


def constants_of(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Initializers and tensors of `Constant` nodes, by the name of the value."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _place(tensor: TensorProto) -> tuple[str, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return entries["location"], int(entries.get("offset", 0))


def _replaced(tensor: TensorProto, array: np.ndarray, folder: Path, shared: Counter[tuple[str, int]]) -> bool:
    """Put the values in, and say whether the message itself changed with that."""
    if list(array.shape) != list(tensor.dims):
        raise ValueError(f"{tensor.name!r} has the shape {list(tensor.dims)}, not {list(array.shape)}")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    data = array.astype(dtype.newbyteorder("<")).tobytes()
    if _is_external(tensor):
        return _written_beside(tensor, data, folder, shared)
    if data == numpy_helper.to_array(tensor).astype(dtype.newbyteorder("<")).tobytes():
        return False
    for field in ("float_data", "double_data"):
        tensor.ClearField(field)
    tensor.raw_data = data
    return True


def _written_beside(tensor: TensorProto, data: bytes, folder: Path, shared: Counter[tuple[str, int]]) -> bool:
    """In place; at the end of the file where other tensors are stored in the same bytes and may keep them."""
    location, offset = _place(tensor)
    with (folder / location).open("r+b") as stream:
        stream.seek(offset)
        if stream.read(len(data)) == data:
            return False
        if shared[location, offset] == 1:
            stream.seek(offset)
            stream.write(data)
            return False
        end = stream.seek(0, 2)
        stream.write(data)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    entries["offset"] = str(end)
    entries["length"] = str(len(data))
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return True
