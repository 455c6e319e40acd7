"""Whether a rewrite that should change nothing changed nothing: both files run on the same call."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from worker.engine.model_file import ModelFile
from worker.engine.sessions import Feed, ModelFails, as_taken_by, open_session, run_session

# Folding BatchNorm or fusing a Gelu reorders float32 sums: 60 dB is a hundred times worse than what that costs.
LEAST_SQNR_DB = 60.0
MAX_DETAIL_CHARACTERS = 200
NOT_COMPARABLE = "outputs differ from call to call: nothing can be compared"


@dataclass(frozen=True)
class Reference:
    """What a model answers to one call, `feed` in the dtypes that it takes: its outputs by name."""

    model: ModelFile
    feed: Feed
    threads: int
    outputs: dict[str, Any]

    @classmethod
    def of(cls, model: ModelFile, feed: Feed, threads: int) -> "Reference":
        """What `model` answers to `feed`, in one call. A job's float32 is cast where a pass made the input float16.

        Raises:
            ModelFails: `model` does not run.
            OutOfMemory: it needs more memory than there is.

        """
        session = open_session(model.path, threads)
        names = [output.name for output in session.get_outputs()]
        taken = as_taken_by(session, feed)
        return cls(model, taken, threads, dict(zip(names, run_session(session, taken), strict=True)))

    @cached_property
    def repeated(self) -> frozenset[str]:
        """The outputs that a second call gives again: not those that chance has a part in.

        The second of a session, as the runtime seeds what has no seed by process and by the place in the graph.

        Raises:
            ModelFails, OutOfMemory: as `of`.

        """
        session, names = open_session(self.model.path, self.threads), list(self.outputs)
        run_session(session, self.feed, names)
        again = run_session(session, self.feed, names)
        return frozenset(name for name, value in zip(names, again, strict=True) if _same(self.outputs[name], value))


def difference(reference: Reference, after: ModelFile) -> str | None:
    """What `after` answers otherwise, in words, or None. That it does not run is a difference.

    What the model itself answers otherwise from call to call is not compared; where that is all of it, that is said.

    Raises:
        OutOfMemory: it needs more memory than there is.

    """
    try:
        names = list(reference.outputs)
        actual = run_session(open_session(after.path, reference.threads), reference.feed, names)
        changed = [name for name, right in zip(names, actual, strict=True) if not _same(reference.outputs[name], right)]
        if changed and not reference.repeated:
            return NOT_COMPARABLE
    except ModelFails as error:
        return error.detail[:MAX_DETAIL_CHARACTERS]
    return next((f"output {name!r} changed" for name in changed if name in reference.repeated), None)


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
