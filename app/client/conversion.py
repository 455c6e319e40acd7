"""What the caller holds in memory, as files that the service reads: arrays as `.npz`, PyTorch modules as ONNX."""

import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.client.errors import ExportFailed

if TYPE_CHECKING:
    import numpy.typing as npt

ONE_FILE_BYTES = 1_800_000_000
"""Above this many bytes of tensors the weights go beside the graph: protobuf ends at 2 GiB."""


def write_npz(path: Path, arrays: Mapping[str, "npt.ArrayLike"]) -> None:
    """One `.npy` a name, without pickle. numpy.savez would refuse arrays named `file` or `allow_pickle`.

    Raises ExportFailed naming an array of Python objects.
    """
    import numpy as np  # noqa: PLC0415 - only callers who hold arrays need numpy

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            array = np.asanyarray(value)
            if array.dtype.hasobject:
                raise ExportFailed(f"The array `{name}` holds Python objects; give it a numeric dtype.")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def export_module(
    module: Any,
    example_inputs: Sequence[Any],
    folder: Path,
    *,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int | None = None,
) -> Path:
    """Export a `torch.nn.Module`, in evaluation mode, to ONNX in `folder`: one file, or a tar with its external data.

    The module's own mode is put back. Raises ExportFailed: torch or onnxscript missing, or what the exporter says.
    """
    missing = [library for library in ("torch", "onnx", "onnxscript") if find_spec(library) is None]
    if missing:
        raise ExportFailed(f"Exporting a module needs {', '.join(missing)} here: pip install {' '.join(missing)}")
    import torch  # noqa: PLC0415 - only callers who hold a module need torch

    path = folder / "model.onnx"
    tensors = [*module.parameters(), *module.buffers()]
    external = sum(tensor.numel() * tensor.element_size() for tensor in tensors) > ONE_FILE_BYTES
    was_training = module.training
    module.eval()
    try:
        torch.onnx.export(
            module,
            tuple(example_inputs),
            path,
            dynamo=True,
            opset_version=opset,
            input_names=list(input_names) if input_names else None,
            output_names=list(output_names) if output_names else None,
            dynamic_shapes=dynamic_shapes,
            external_data=external,
            verbose=False,
        )
    except Exception as error:
        raise ExportFailed(f"torch.onnx.export failed: {error}") from error
    finally:
        module.train(was_training)
    _check_names(path)
    return _as_tar(folder) if external else path


def _check_names(path: Path) -> None:
    """No runtime loads the file that torch writes where an output is named like a value inside the graph.

    Raises ExportFailed naming it.
    """
    import onnx  # noqa: PLC0415 - onnxscript brings it

    graph = onnx.load(path, load_external_data=False).graph
    seen: set[str] = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in seen:
                raise ExportFailed(
                    f"The name `{name}` was given to two values of the exported graph: choose other `output_names`."
                )
            seen.add(name)


def _as_tar(folder: Path) -> Path:
    path = folder / "model.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            if file != path:
                archive.add(file, arcname=file.name)
    return path
