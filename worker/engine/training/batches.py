"""Samples into steps: which are trained on, in which order, and a few at a time in memory."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.arrays import rows_not_finite
from worker.engine.faults import UserFault
from worker.engine.feeds import Feeds
from worker.engine.trainable.arrays import tensor_from
from worker.engine.training.randomness import ORDER, SPLIT, generator
from worker.engine.training.targets import Target

# Infinity in so large a share of the samples is no fault of single ones: masks that are added hold it.
MASKED_SHARE = 0.5


class TooFewSamples(UserFault):
    code, title = "too_few_samples", "There is too little training data"


class Answering(Protocol):
    """What a teacher says of samples, by name of the tensor; a row a sample."""

    def answers(self, samples: np.ndarray) -> Mapping[str, np.ndarray]: ...


@dataclass(frozen=True)
class Split:
    """Samples by index, in order: those that are trained on, and those that judge."""

    training: np.ndarray
    held_out: np.ndarray

    def sha256(self) -> str:
        return hashlib.sha256(self.held_out.astype("<i8").tobytes()).hexdigest()


def training_count(count: int, share: float) -> int:
    """Samples that are trained on where `share` is held out: one at least."""
    return max(1, count - max(1, round(share * count)))


def split(samples: np.ndarray, share: float, seed: int) -> Split:
    """`share` of these samples, ascending indices, held out, one at least on either side.

    Raises:
        TooFewSamples: there are fewer than two.

    """
    count = len(samples)
    if count < 2:
        raise TooFewSamples(
            f"The training data has {count} samples; one to learn from and one to judge by is the least.",
            "Give more training data.",
        )
    held = count - training_count(count, share)
    order = samples[generator(seed, SPLIT).permutation(count)]
    return Split(np.sort(order[held:]), np.sort(order[:held]))


@dataclass(frozen=True)
class Finite:
    """`samples`, ascending indices, are those of the first `read` that may be fed; `strange` has by input the others,
    inputs without any left out.
    """

    samples: np.ndarray
    strange: Mapping[str, np.ndarray]
    read: int


@dataclass
class _Strange:
    """What one input is fed that is no number: samples with NaN, and those with infinity, masks left out."""

    unknown: list[np.ndarray] = field(default_factory=list)
    infinite: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray, samples: np.ndarray) -> None:
        infinite, zeros = np.isinf(rows).any(axis=1), rows == 0
        # Added to scores, 0 keeps a place and -inf takes it out, as of padding in a few samples alone.
        masks = (zeros | (rows == -np.inf)).all(axis=1) & zeros.any(axis=1)
        self.unknown.append(samples[np.isnan(rows).any(axis=1)])
        self.infinite.append(samples[infinite & ~masks])

    def left_out(self, read: int) -> np.ndarray:
        """Ascending indices, of so many samples."""
        masked = sum(map(len, self.infinite)) > MASKED_SHARE * read
        return np.unique(np.concatenate([*self.unknown, *([] if masked else self.infinite)]))


def find_finite(feeds: Feeds, batch: int, most: int | None = None) -> Finite:
    """The samples that are fed no NaN and no infinity, all or, as far as it takes to find them, the first `most`.

    Masks that are added to scores hold infinity: samples of which an input holds 0 and -inf alone may be fed, and where
    more than half of the samples hold other infinity in an input, only those with NaN may not. Reads `batch` samples
    at a time.
    """
    found: dict[str, _Strange] = {}
    read, wanted = 0, feeds.sample_count if most is None else most
    while read < feeds.sample_count and wanted > 0:
        size = min(batch, wanted)
        following = np.arange(read, min(read + size, feeds.sample_count))
        for call in feeds.calls(size, following):
            for name, array in call.feed.items():
                rows = array[None] if feeds.whole else array[: len(call.samples)]
                if (strange := rows_not_finite(rows)).any():
                    of_input = found.setdefault(name, _Strange())
                    of_input.add(rows[strange].reshape(int(strange.sum()), -1), call.samples[strange])
        read += len(following)
        if most is not None:
            wanted = most - len(_finite(found, read).samples)
    return _finite(found, read)


def _finite(found: Mapping[str, _Strange], read: int) -> Finite:
    strange = {name: samples for name, one in found.items() if len(samples := one.left_out(read))}
    every = np.arange(read)
    return Finite(np.setdiff1d(every, np.concatenate([*strange.values(), every[:0]])), strange, read)


def smallest_step(count: int, size: int) -> int:
    """Samples of the smallest of the steps of about `size` that `Batches.epoch` makes of `count`."""
    return count // -(-count // size)


@dataclass(frozen=True)
class Batch:
    """One call: the feed, and by output or tensor what is known of its samples, a row each."""

    feed: dict[str, torch.Tensor]
    samples: np.ndarray
    labels: dict[str, torch.Tensor]
    answers: dict[str, torch.Tensor]
    whole: bool

    def rows(self, value: Any) -> Any:
        """What a call made, tensor or array, as a row a sample: without padding, or the one that a whole feed is."""
        return value[None] if self.whole else value[: len(self.samples)]


@dataclass(frozen=True)
class Batches:
    """Steps of about `size` samples, in an order of their own each epoch. Nothing is read before its turn."""

    feeds: Feeds
    samples: np.ndarray
    size: int
    seed: int
    device: torch.device
    targets: Sequence[Target] = ()
    teacher: Answering | None = None

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-len(self.samples) // self.size)

    def epoch(self, number: int) -> list[np.ndarray]:
        """The samples of each step. Sizes differ by one at most, so that no step is left with a handful."""
        order = generator(self.seed, ORDER, number).permutation(self.samples)
        return np.array_split(order, self.steps)

    def calls(self, samples: np.ndarray) -> Iterator[Batch]:
        """These samples in one call, or in as many as the model's own batch takes."""
        for call in self.feeds.calls(len(samples), samples):
            yield self._batch(call.feed, call.samples)

    def in_order(self) -> Iterator[Batch]:
        """Every sample once, a step's worth at a time."""
        for start in range(0, len(self.samples), self.size):
            yield from self.calls(self.samples[start : start + self.size])

    def _batch(self, feed: dict[str, np.ndarray], samples: np.ndarray) -> Batch:
        answers = {} if self.teacher is None else self.teacher.answers(samples)
        return Batch(
            feed={name: tensor_from(array).to(self.device) for name, array in feed.items()},
            samples=samples,
            labels={target.output: target.rows(samples).to(self.device) for target in self.targets},
            answers={name: tensor_from(array).to(self.device) for name, array in answers.items()},
            whole=bool(self.feeds.whole),
        )
