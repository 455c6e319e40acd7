"""Whether a rewrite that should change nothing changed nothing: both files run on the same calls."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from worker.engine.model_file import ModelFile
from worker.engine.random_input import is_mask
from worker.engine.sessions import Feed, ModelFails, as_taken_by, open_session, run_session

# Folding BatchNorm or fusing a Gelu reorders float32 sums: 60 dB is a hundred times worse than what that costs.
LEAST_SQNR_DB = 60.0
# What exceeds all but the smallest tenth so many times, and 1 as well, is compared by itself.
LARGE = 1e4
# So many roundings of the largest number may be in what is computed from it.
ROUNDINGS = 64
# Masks of fewer places have none in the middle.
FEWEST_PLACES = 3
MAX_DETAIL_CHARACTERS = 200
NOT_COMPARABLE = "outputs differ from call to call: nothing can be compared"


@dataclass(frozen=True)
class Answered:
    """A call, `feed` in the dtypes that the model takes, and its outputs by name."""

    feed: Feed
    outputs: dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """What a model answers to a call, and where that has masks, to the same call with other places hidden."""

    model: ModelFile
    threads: int
    calls: tuple[Answered, ...]

    @classmethod
    def of(cls, model: ModelFile, feed: Feed, threads: int) -> "Reference":
        """What `model` answers to `feed`. A job's float32 is cast where a pass made the input float16.

        Raises:
            ModelFails: `model` does not run.
            OutOfMemory: it needs more memory than there is.

        """
        session = open_session(model.path, threads)
        names = [output.name for output in session.get_outputs()]

        def answered(given: Feed) -> Answered:
            return Answered(given, dict(zip(names, run_session(session, given), strict=True)))

        calls = [answered(as_taken_by(session, feed))]
        if (otherwise := _masked_otherwise(calls[0].feed)) is not None:
            with suppress(ModelFails):  # what is called a mask may be something else, and bound to its values
                calls.append(answered(otherwise))
        return cls(model, threads, tuple(calls))

    @cached_property
    def repeated(self) -> frozenset[str]:
        """The outputs that a second call gives again: not those that chance has a part in.

        The second of a session, as the runtime seeds what has no seed by process and by the place in the graph.

        Raises:
            ModelFails, OutOfMemory: as `of`.

        """
        first = self.calls[0]
        session, names = open_session(self.model.path, self.threads), list(first.outputs)
        run_session(session, first.feed, names)
        again = run_session(session, first.feed, names)
        return frozenset(name for name, value in zip(names, again, strict=True) if _same(first.outputs[name], value))


def difference(reference: Reference, after: ModelFile) -> str | None:
    """What `after` answers otherwise, in words, or None. That it does not run is a difference.

    What the model itself answers otherwise from call to call is not compared; where that is all of it, that is said.

    Raises:
        OutOfMemory: it needs more memory than there is.

    """
    changed: list[str] = []
    try:
        session = open_session(after.path, reference.threads)
        for call in reference.calls:
            actual = run_session(session, call.feed, list(call.outputs))
            pairs = zip(call.outputs.items(), actual, strict=True)
            changed += [name for (name, left), right in pairs if not _same(left, right)]
        if changed and not reference.repeated:
            return NOT_COMPARABLE
    except ModelFails as error:
        return error.detail[:MAX_DETAIL_CHARACTERS]
    return next((f"output {name!r} changed" for name in changed if name in reference.repeated), None)


def _masked_otherwise(feed: Feed) -> Feed | None:
    """The same call with the first place and one in the middle turned over in every mask of 0 and 1; None without one.

    Made-up masks hide nothing, and most data hides at the end alone, where a mask is as good as a number of places.
    """
    masks = {name: array.copy() for name, array in feed.items() if is_mask(name) and _tells_places(array)}
    for array in masks.values():
        places = [0, array.shape[-1] // 2]
        array[..., places] = array[..., places] == 0
    return feed | masks if masks else None


def _tells_places(array: np.ndarray) -> bool:
    enough = array.ndim > 0 and array.shape[-1] >= FEWEST_PLACES
    return enough and array.dtype.kind in "biuf" and bool(np.isin(array, (0, 1)).all())


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
    rounding = ROUNDINGS * float(np.finfo(left.dtype).eps)
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(right[finite]).all():
        return False
    return _same_numbers(np.abs(left[finite]), np.abs(left[finite] - right[finite]), rounding)


def _same_numbers(size: np.ndarray, error: np.ndarray, rounding: float) -> bool:
    """Whether errors (n,) are rounding, of numbers of these magnitudes (n,), by power; large numbers one by one.

    Masks put the lowest number where there is nothing, and beside its power everything is small.
    """
    large, carried = _large(size), 0.0
    if large.any():
        # A constant comes out the same to the bit, and hands no rounding on.
        carried = rounding * float(size[error > 0].max(initial=0.0))
        if (error[large] > size[large] * 10 ** (-LEAST_SQNR_DB / 20) + carried).any():
            return False
        size, error = size[~large], error[~large]
    noise, signal = float(np.sum(error**2)), float(np.sum(size**2))
    return noise <= signal * 10 ** (-LEAST_SQNR_DB / 10) + size.size * carried**2 + 1e-12


def _large(size: np.ndarray) -> np.ndarray:
    if size.max(initial=0.0) <= LARGE:
        return np.zeros(size.shape, bool)
    return size > LARGE * max(1.0, float(np.quantile(size[size > 0], 0.1)))
