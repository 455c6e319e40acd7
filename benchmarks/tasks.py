"""What an optimizer is given, and what it answers: the same for every one."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Task:
    """Paths as text, for they travel as JSON. `calibration` is a folder of arrays; `target` is the file to write.

    `original` is what `model` was made from, where it is no original itself. `training` is a folder of arrays too,
    labels among them; `weights` holds the tensors of the torch module that the original was exported from. `batch`
    samples are timed.
    """

    model: str
    calibration: str
    target: str
    threads: int
    original: str = ""
    training: str = ""
    weights: str = ""
    batch: int = 1

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def arrays_in(folder: Path) -> dict[str, np.ndarray]:
    """The `.npy` files of a folder by their names, mapped read-only. The first axis counts samples."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def samples_of(arrays: dict[str, np.ndarray], batch: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """One feed of `batch` samples after another."""
    for start in range(0, len(next(iter(arrays.values()))), batch):
        yield {name: np.ascontiguousarray(array[start : start + batch]) for name, array in arrays.items()}
