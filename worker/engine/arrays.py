"""Datasets as read-only memory maps: one array a name, never loaded whole."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from worker.engine import npz, safetensors_file
from worker.engine.dataset_faults import NotADataset
from worker.engine.stored_arrays import BFLOAT16

CHUNK_BYTES = 16 << 20
NPZ = "application/x-npz"
SAFETENSORS = "application/x-safetensors"


def sniff(path: Path) -> str:
    """The media type that the content shows, `application/x-npz` or `application/x-safetensors`.

    Raises:
        NotADataset: it is neither.

    """
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(npz.MAGICS):
        return NPZ
    if safetensors_file.looks_like(head):
        return SAFETENSORS
    raise NotADataset(
        "The file is empty." if not head else f"The file begins with {head[:8]!r}, as neither format does.",
        "Save the arrays with numpy.savez or safetensors.numpy.save_file and upload that file.",
    )


def open_arrays(path: Path, media_type: str, scratch: Path) -> dict[str, np.ndarray]:
    """Every array of the dataset by name, as read-only memory maps in the machine's byte order.

    Members of an npz are streamed into `.npy` files in `scratch`; safetensors are mapped in place. `media_type` is the
    declared one; where it is neither of the two, or the content shows the other, the content decides.

    Raises:
        UserFault: the file is none of the two, or breaks its format; subclasses say how.

    """
    if media_type not in (NPZ, SAFETENSORS) or sniff(path) != media_type:
        media_type = sniff(path)
    if media_type == NPZ:
        return npz.open_arrays(path, scratch)
    return safetensors_file.open_arrays(path)


def rows_not_finite(rows: np.ndarray) -> np.ndarray:
    """By entry of the first axis whether it holds a NaN or an infinity, (N,) bool: none does of others than floats."""
    if rows.dtype.kind != "f" and rows.dtype != BFLOAT16:
        return np.zeros(len(rows), bool)
    found: np.ndarray = (~np.isfinite(rows)).reshape(len(rows), -1).any(axis=1)
    return found


def samples_not_finite(array: np.ndarray) -> int:
    """Samples (entries of the first axis) that hold a NaN or an infinity. Reads a piece at a time."""
    step = max(1, CHUNK_BYTES * len(array) // max(1, array.nbytes))
    pieces = (array[start : start + step] for start in range(0, len(array), step))
    return sum(int(rows_not_finite(piece).sum()) for piece in pieces)


def copy_samples(arrays: Mapping[str, np.ndarray], samples: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """These entries of the first axis of every array, (N,) int, in files of the new folder: memory does not grow with
    the data.
    """
    folder.mkdir(parents=True)
    copies = {}
    for number, (name, array) in enumerate(arrays.items()):
        shape = (len(samples), *array.shape[1:])
        if array.size == 0:
            copies[name] = np.zeros(shape, array.dtype)
            continue
        copy = np.memmap(folder / f"{number}.bin", dtype=array.dtype, mode="w+", shape=shape)
        step = max(1, CHUNK_BYTES * len(array) // array.nbytes)
        for start in range(0, len(samples), step):
            copy[start : start + step] = array[samples[start : start + step]]
        copies[name] = np.asarray(copy)
    return copies
