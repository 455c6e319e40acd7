"""Whether a rewrite that should change nothing changed nothing: both files run on the same call."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.engine.model_file import ModelFile
from worker.engine.sessions import Feed, ModelFails, open_session, run_session

# Folding BatchNorm or fusing a Gelu reorders float32 sums: 60 dB is a hundred times worse than what that costs.
LEAST_SQNR_DB = 60.0
MAX_DETAIL_CHARACTERS = 200


@dataclass(frozen=True)
class Reference:
    """What a model answers to one call: its outputs by name."""

    feed: Feed
    outputs: dict[str, Any]

    @classmethod
    def of(cls, model: ModelFile, feed: Feed, threads: int) -> "Reference":
        """
        Raises:
            ModelFails: `model` does not run.
            OutOfMemory: it needs more memory than there is.

        """
        session = open_session(model.path, threads)
        names = [output.name for output in session.get_outputs()]
        return cls(feed, dict(zip(names, run_session(session, feed), strict=True)))


def difference(reference: Reference, after: ModelFile, threads: int) -> str | None:
    """What `after` answers otherwise, in words, or None. That it does not run is a difference.

    Raises:
        OutOfMemory: it needs more memory than there is.

    """
    try:
        actual = run_session(open_session(after.path, threads), reference.feed, list(reference.outputs))
    except ModelFails as error:
        return error.detail[:MAX_DETAIL_CHARACTERS]
    for (name, left), right in zip(reference.outputs.items(), actual, strict=True):
        if not _same(left, right):
            return f"output {name!r} changed"
    return None


def _same(left: Any, right: Any) -> bool:
    """Of two values of the runtime: an array, None, or a sequence or map of what may be in one."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, np.ndarray | float):
        return _same_array(np.asarray(left), np.asarray(right))
    return bool(left == right)


def _same_array(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(right[finite]).all():
        return False
    noise = float(np.sum((left[finite] - right[finite]) ** 2))
    signal = float(np.sum(left[finite] ** 2))
    return noise <= signal * 10 ** (-LEAST_SQNR_DB / 10) + 1e-12
