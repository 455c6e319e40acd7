"""How data meets a model: which array goes into which input, and how samples become calls."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel

from app import errors
from worker.engine.faults import UserFault
from worker.engine.graph import TensorFace
from worker.engine.sessions import Feed
from worker.engine.stored_arrays import ArrayStore, StoredArray

CASTS_THAT_LOSE_LITTLE = {("float64", "float32")}


class DataMismatch(UserFault):
    code, title = errors.DataMismatch.code, errors.DataMismatch.title


@dataclass(frozen=True)
class Call:
    """One call of the model. Outputs hold `len(samples)` samples; with padding, more rows, to be cut."""

    feed: Feed
    samples: np.ndarray


class FeedDescription(BaseModel):
    """Everything another process needs to make the same calls."""

    arrays: dict[str, StoredArray]
    dtypes: dict[str, str]
    whole: list[str]
    fixed_batch: int | None
    sample_count: int

    def open(self) -> "Feeds":
        """The same calls, in another process."""
        return Feeds(
            arrays={name: stored.open() for name, stored in self.arrays.items()},
            dtypes=self.dtypes,
            whole=frozenset(self.whole),
            sample_count=self.sample_count,
            fixed_batch=self.fixed_batch,
        )


@dataclass(frozen=True)
class Feeds:
    """Calls made from arrays, in the order of the samples, as often as asked.

    The first axis of an array is the model's batch axis, except for those named in `whole`: they have one axis more
    than their input, `array[i]` is the whole feed of call `i`, and every call then holds one sample.
    """

    arrays: dict[str, np.ndarray]
    dtypes: dict[str, str]
    whole: frozenset[str]
    sample_count: int
    fixed_batch: int | None = None
    source: str = "data"
    warnings: tuple[str, ...] = field(default=())

    def samples_per_call(self, wanted: int) -> int:
        """`wanted`, unless the model or the data fixes another number."""
        if self.whole:
            return 1
        return self.fixed_batch or wanted

    def call(self, samples: np.ndarray) -> Call:
        """One call with these samples (indices), padded with the last where the model's batch is larger."""
        rows = samples
        if not self.whole and self.fixed_batch and len(samples) < self.fixed_batch:
            rows = np.concatenate([samples, np.repeat(samples[-1:], self.fixed_batch - len(samples))])
        feed = {}
        for name, array in self.arrays.items():
            chosen = array[int(rows[0])] if name in self.whole else array[rows]
            feed[name] = _as_dtype(chosen, self.dtypes[name])
        return Call(feed, samples)

    def calls(self, batch: int, samples: np.ndarray | None = None) -> Iterator[Call]:
        """Every sample once, in order, `samples_per_call(batch)` at a time; `samples` picks some of them."""
        chosen = np.arange(self.sample_count) if samples is None else samples
        step = self.samples_per_call(batch)
        for start in range(0, len(chosen), step):
            yield self.call(chosen[start : start + step])

    def describe(self, store: ArrayStore) -> FeedDescription:
        """For another process; arrays that no file holds are written into `store`."""
        return FeedDescription(
            arrays={name: store.keep(array) for name, array in self.arrays.items()},
            dtypes=self.dtypes,
            whole=sorted(self.whole),
            fixed_batch=self.fixed_batch,
            sample_count=self.sample_count,
        )


def match_arrays(inputs: list[TensorFace], arrays: dict[str, np.ndarray], source: str) -> Feeds:
    """Bind arrays to inputs by name. Arrays that bear no input's name are left alone: labels are among them.

    Raises:
        DataMismatch: an input has no array, or an array's dtype, rank or axes do not fit its input.

    """
    warnings: list[str] = []
    whole, batches = set(), {}
    for face in inputs:
        array = _array_for(face, arrays, source)
        if is_whole(face, array):
            whole.add(face.name)
        _check_axes(face, array, source)
        _check_dtype(face, array, source, warnings)
        fixed = face.shape[0] if face.shape and face.name not in whole else None
        if fixed == 0:
            raise DataMismatch(
                f"Input {face.name!r} is {_describe(face)}: the model takes no samples along its first axis.",
                "Export that axis as open; or, where it counts no samples, give the array one axis more.",
            )
        if isinstance(fixed, int):
            batches[face.name] = fixed
    if not whole and len(set(batches.values())) > 1:
        raise DataMismatch(
            f"The inputs fix different batch sizes: {batches}.",
            "Give the inputs whose first axis is no batch axis one array axis more: array[i] feeds call i.",
        )
    if whole and any(size != 1 for size in batches.values()):
        raise DataMismatch(
            f"Arrays {sorted(whole)} of {source} feed one call a sample, but the model wants {batches} samples a call.",
            "Give every array one axis more than its input.",
        )
    matched = {face.name: arrays[face.name] for face in inputs}
    return Feeds(
        arrays=matched,
        dtypes={face.name: face.dtype for face in inputs},
        whole=frozenset(whole),
        sample_count=min((len(array) for array in matched.values()), default=1),
        fixed_batch=next(iter(batches.values()), None) if not whole else None,
        source=source,
        warnings=tuple(warnings),
    )


def is_whole(face: TensorFace, array: np.ndarray) -> bool:
    """Whether `array[i]` is the whole feed of call `i`."""
    return face.shape is not None and array.ndim == len(face.shape) + 1


def _array_for(face: TensorFace, arrays: dict[str, np.ndarray], source: str) -> np.ndarray:
    if face.name not in arrays:
        raise DataMismatch(
            f"No array of {source} is named {face.name!r}, an input of the model ({_describe(face)}). "
            f"It has: {', '.join(sorted(arrays)) or 'none'}.",
            f"Save an array named {face.name!r}, its first axis counting samples.",
        )
    return arrays[face.name]


def _check_axes(face: TensorFace, array: np.ndarray, source: str) -> None:
    if face.shape is None:
        return
    axes = array.shape[1:] if array.ndim == len(face.shape) + 1 else array.shape
    wanted = face.shape
    fits = len(axes) == len(wanted) and all(
        not isinstance(size, int) or size == axes[position]
        for position, size in enumerate(wanted)
        # The first axis of an array of the input's own rank counts samples, whatever the model's batch.
        if position or array.ndim != len(wanted)
    )
    if not fits:
        raise DataMismatch(
            f"Array {face.name!r} of {source} is {array.dtype} {list(array.shape)}; the input is {_describe(face)}.",
            "Give an array of the input's shape with samples along the first axis, or with one axis more.",
        )


def _check_dtype(face: TensorFace, array: np.ndarray, source: str, warnings: list[str]) -> None:
    given, wanted = array.dtype.name, face.dtype
    if given == wanted:
        return
    if (given, wanted) in CASTS_THAT_LOSE_LITTLE:
        warnings.append(f"Array {face.name!r} of {source} is {given} and was rounded to the input's {wanted}.")
    elif wanted != "string" and _fits_exactly(array.dtype, wanted):
        warnings.append(f"Array {face.name!r} of {source} is {given}; every value was cast to {wanted} without loss.")
    else:
        raise DataMismatch(
            f"Array {face.name!r} of {source} is {given} {list(array.shape)}; the input is {_describe(face)}, "
            f"and not every {given} is a {wanted}.",
            f"Save the array as {wanted}.",
        )


def _fits_exactly(given: np.dtype, wanted: str) -> bool:
    try:
        return given != np.bool_ and np.can_cast(given, np.dtype(wanted), "safe")
    except TypeError:  # a dtype numpy does not know, such as bfloat16
        return False


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """Contiguous, in the dtype of the input; text as the objects that the runtime takes."""
    return np.ascontiguousarray(array, dtype=object if dtype == "string" else np.dtype(dtype)).reshape(array.shape)


def _describe(face: TensorFace) -> str:
    shape = "of unknown rank" if face.shape is None else str(["?" if size is None else size for size in face.shape])
    return f"{face.dtype} {shape}"
