"""How samples become calls: arrays that were matched with a model's inputs, in the batches that it takes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from app import errors
from app.datasets.inspection import ArraySpec
from app.datasets.matching import match
from worker.engine.faults import UserFault
from worker.engine.sessions import Feed
from worker.engine.stored_arrays import ArrayStore, StoredArray

if TYPE_CHECKING:  # not loaded with onnx by probes that only open what was matched
    from worker.engine.graph import TensorFace


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


def match_arrays(inputs: list["TensorFace"], arrays: dict[str, np.ndarray], source: str) -> Feeds:
    """Bind arrays to inputs by name. Arrays that bear no input's name are left alone: labels are among them.

    Raises DataMismatch, as `match`.
    """
    found = [ArraySpec(name=name, dtype=array.dtype.name, shape=list(array.shape)) for name, array in arrays.items()]
    try:
        matching = match(inputs, found, source)
    except errors.DataMismatch as mismatch:
        raise DataMismatch(mismatch.detail, mismatch.remedy) from mismatch
    matched = {face.name: arrays[face.name] for face in inputs}
    return Feeds(
        arrays=matched,
        dtypes={face.name: face.dtype for face in inputs},
        whole=matching.whole,
        sample_count=min((len(array) for array in matched.values()), default=1),
        fixed_batch=matching.fixed_batch,
        source=source,
        warnings=matching.casts,
    )


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """Contiguous, in the dtype of the input; text as the objects that the runtime takes."""
    return np.ascontiguousarray(array, dtype=object if dtype == "string" else np.dtype(dtype)).reshape(array.shape)
