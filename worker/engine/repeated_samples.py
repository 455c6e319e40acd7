"""Samples that a model is fed more than once, found by what it is fed: to the byte, and whatever the labels are.

A part of each sample is hashed first, and all of it only where that part is the same: samples may be large, and few are
the same. Arrays are read a piece at a time; what is kept of a sample is eight bytes.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worker.engine.feeds import Feeds

# Elements of each array of a sample that are hashed first: those in its middle, as what is the same of many is margins.
PART = 1024
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Samples:
    """Some samples of `feeds`: those at `places`, (N,) int."""

    feeds: Feeds
    places: np.ndarray

    @cached_property
    def short(self) -> np.ndarray:
        """Hashes of a part of each, (N,) uint64."""
        return _hashes(self, PART)

    def at(self, chosen: np.ndarray) -> "Samples":
        """Some of these: `chosen` are indices, or (N,) bool."""
        return Samples(self.feeds, self.places[chosen])


def repeated(parts: Mapping[str, Samples], earlier: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """By each name of `earlier`, (N,) bool: which samples of that part a part that is named there has as well.

    None has of a model without inputs. Two that differ are taken for the same once in 2**64.
    """
    if not all(part.feeds.arrays for part in parts.values()):
        return {name: np.zeros(len(parts[name].places), bool) for name in earlier}
    found = {}
    for name, others in earlier.items():
        part, before = parts[name], [parts[other] for other in others]
        again = np.isin(part.short, np.concatenate([one.short for one in before]))
        alike = np.flatnonzero(again)
        if len(alike):
            theirs = [_hashes(one.at(np.isin(one.short, part.short[alike]))) for one in before]
            again[alike] = np.isin(_hashes(part.at(alike)), np.concatenate(theirs))
        found[name] = again
    return found


def distinct(samples: Samples) -> int:
    """How many of them the model is fed something else for than for all before; all of a model without inputs."""
    if not samples.feeds.arrays:
        return len(samples.places)
    _, kinds, counts = np.unique(samples.short, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(counts[kinds] > 1)
    return len(samples.places) - len(alike) + len(np.unique(_hashes(samples.at(alike))))


def _hashes(samples: Samples, most: int | None = None) -> np.ndarray:
    """Of each sample, (N,) uint64: of all of it, or of `most` elements of each array."""
    feeds, places = samples.feeds, samples.places
    step = max(1, CHUNK_BYTES // max(1, sum(array[:1].nbytes for array in feeds.arrays.values())))
    digests = bytearray()
    for start in range(0, len(places), step):
        chosen = places[start : start + step]
        pieces = [_bytes(feeds.arrays[name], chosen, feeds.dtypes[name], most) for name in sorted(feeds.arrays)]
        for row in np.concatenate(pieces, axis=1):
            digests += hashlib.blake2b(row, digest_size=8).digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _bytes(array: np.ndarray, places: np.ndarray, dtype: str, most: int | None) -> np.ndarray:
    """(N, bytes) uint8 of entries of the first axis, as the model is fed them."""
    width = math.prod(array.shape[1:])
    first = 0 if most is None else max(0, (width - most) // 2)
    columns = slice(first, width if most is None else first + most)
    if array.flags.c_contiguous:  # nothing else of the file is read
        rows = array.reshape(len(array), width)[places, columns]
    else:
        rows = array[places].reshape(len(places), width)[:, columns]
    with np.errstate(all="ignore"):  # what is beyond the range of the input's dtype is infinite when it is fed as well
        return np.ascontiguousarray(rows, dtype=np.dtype(dtype)).view(np.uint8)
