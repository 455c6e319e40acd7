"""Arrays that another process can map: what a child is told instead of the data."""

import math
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from pydantic import BaseModel, ConfigDict

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class StoredArray(BaseModel):
    """Raw elements in C order, from byte `offset` of the file `path` on."""

    model_config = ConfigDict(frozen=True)

    path: str
    dtype: str
    shape: list[int]
    offset: int = 0

    def open(self) -> np.ndarray:
        """A read-only view, mapped where it holds elements."""
        dtype = BFLOAT16 if self.dtype == BFLOAT16.name else np.dtype(self.dtype)
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, dtype)
        # A plain array over the map: a memmap's own class makes every slice of it slow.
        return np.asarray(np.memmap(self.path, dtype=dtype, mode="r", offset=self.offset, shape=tuple(self.shape)))


@dataclass
class ArrayStore:
    """Writes arrays that no file holds yet into `folder`."""

    folder: Path
    count: int = 0

    def keep(self, array: np.ndarray) -> StoredArray:
        """Where another process finds `array`: in place where it is mapped in C order, else in a new file."""
        dtype = array.dtype.name if array.dtype == BFLOAT16 else array.dtype.str
        root = _mapped_root(array)
        if root is not None and array.flags.c_contiguous and array.size:
            offset = int(root.offset) + array.ctypes.data - root.ctypes.data
            path = Path(str(root.filename)).resolve()
            return StoredArray(path=str(path), dtype=dtype, shape=list(array.shape), offset=offset)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.count}.bin"
        self.count += 1
        array.tofile(path)
        return StoredArray(path=str(path.resolve()), dtype=dtype, shape=list(array.shape))


def _mapped_root(array: np.ndarray) -> np.memmap | None:
    """The memory map that `array` is a view of, with the `offset` that is its own, or None."""
    root: np.memmap | None = None
    current: object = array
    while isinstance(current, np.ndarray):
        root = current if isinstance(current, np.memmap) else root
        current = current.base
    return root
