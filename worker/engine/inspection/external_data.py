"""Weights that lie beside the model, in the files of the same upload and nowhere else.

Specification: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from pathlib import Path

from onnx import TensorProto

from worker.engine.model_faults import CorruptModel, ForeignExternalData, MissingExternalData, ShortExternalData

SIDE_BY_SIDE = (
    "Upload one tar of the .onnx file and its data files side by side; "
    "onnx.save_model(model, path, save_as_external_data=True, location='model.data') writes them so."
)
SEPARATORS = frozenset("/\\\0")
MAX_NAME_BYTES = 255


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def check_external(tensor: TensorProto, needed_bytes: int, folder: Path) -> None:
    """Check that the tensor's bytes lie within a plain file of `folder`. Reads none of them.

    Raises:
        ForeignExternalData: its location is anything but a bare file name, or not a regular file.
        MissingExternalData: there is no such file.
        ShortExternalData: the file ends before the tensor does.
        CorruptModel: offset or length make no sense.

    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    # ONNX Runtime reads "*/_ORT_MEM_ADDR_/*" as an address in its own memory; a slash rules that out as well.
    if location in ("", ".", "..") or not SEPARATORS.isdisjoint(location) or len(location.encode()) > MAX_NAME_BYTES:
        raise ForeignExternalData(
            f"Tensor {tensor.name!r} points at {location!r}, which is not the bare name of a file of the upload.",
            SIDE_BY_SIDE,
        )
    path = folder / location
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ForeignExternalData(
            f"Tensor {tensor.name!r} points at {location!r}, which is no plain file.", SIDE_BY_SIDE
        )
    if not path.exists():
        raise MissingExternalData(
            f"Tensor {tensor.name!r} lies in {location!r}, which is not part of the upload.", SIDE_BY_SIDE
        )
    offset = _number(tensor, entries, "offset", 0)
    length = _number(tensor, entries, "length", needed_bytes)
    if length != needed_bytes:
        raise CorruptModel(
            f"Tensor {tensor.name!r} needs {needed_bytes:,} bytes and declares {length:,} in {location!r}.",
            "Export the model again.",
        )
    size = path.stat().st_size
    if offset + needed_bytes > size:
        raise ShortExternalData(
            f"Tensor {tensor.name!r} ends at byte {offset + needed_bytes:,} of {location!r}, which has {size:,}.",
            "Upload the complete data file; it was probably cut short, or belongs to another export.",
        )


def _number(tensor: TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise CorruptModel(
            f"Tensor {tensor.name!r} has the external data {key} {text[:40]!r}.", "Export the model again."
        )
    return int(text)
