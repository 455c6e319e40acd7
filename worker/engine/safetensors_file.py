"""`.safetensors` mapped in place.

The library validates the header (sizes, overlaps, holes, overflow); the mapping is ours, because the library's own
arrays are copies. Format: https://huggingface.co/docs/safetensors, section Format.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from worker.engine.dataset_faults import CorruptDataset, DuplicateArray, UnsupportedDtype

# Ten thousand arrays need about one megabyte; the library's own bound is a hundred.
MAX_HEADER_BYTES = 8 << 20
RESAVE = "Save it again with safetensors.numpy.save_file."
DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
BFLOAT16 = "BF16"


@dataclass(frozen=True)
class Entry:
    """One array of the file, known from the header alone."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


def looks_like(head: bytes) -> bool:
    """Whether a file that begins with these nine bytes could be one: a length, then a JSON object."""
    return len(head) == 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 40


def read_entries(path: Path) -> list[Entry]:
    """The arrays in the order of their data.

    Raises:
        CorruptDataset: the header breaks the format or does not match the file.
        DuplicateArray: two arrays share a name.
        UnsupportedDtype: an element type that no model takes.

    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise CorruptDataset(f"The header claims {length:,} bytes; {MAX_HEADER_BYTES:,} is the most read.", RESAVE)
        header = file.read(length)
    try:
        with safe_open(path, framework="np"):
            entries = json.loads(header, object_pairs_hook=_refuse_duplicates)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CorruptDataset(f"The .safetensors file is damaged or cut short: {str(error)[:200]}", RESAVE) from error
    entries.pop("__metadata__", None)
    found = [_entry(name, entry, 8 + length) for name, entry in entries.items()]
    return sorted(found, key=lambda entry: entry.offset)


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array by name, mapped read-only in place. Raises as `read_entries`."""
    return {entry.name: _map(path, entry) for entry in read_entries(path)}


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DuplicateArray(f"The header holds {name!r} twice.", "Give every array a name of its own.")
        found[name] = value
    return found


def _entry(name: str, entry: dict[str, Any], data_start: int) -> Entry:
    code = entry["dtype"]
    if code == BFLOAT16:
        import ml_dtypes  # noqa: PLC0415 - few files need it

        dtype = np.dtype(ml_dtypes.bfloat16)
    elif code in DTYPES:
        dtype = np.dtype(DTYPES[code])
    else:
        raise UnsupportedDtype(f"Array {name!r} has dtype {code}.", "Use BOOL, an integer type, F16, BF16, F32 or F64.")
    return Entry(name, dtype, tuple(entry["shape"]), data_start + entry["data_offsets"][0])


def _map(path: Path, entry: Entry) -> np.ndarray:
    if math.prod(entry.shape) == 0:  # an empty range cannot be mapped
        array = np.zeros(entry.shape, entry.dtype)
        array.setflags(write=False)
        return array
    return np.asarray(np.memmap(path, entry.dtype, "r", entry.offset, entry.shape))
