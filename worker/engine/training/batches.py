"""Samples into steps: which are trained on, in which order, and a few at a time in memory."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

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


def not_finite(feeds: Feeds, batch: int) -> dict[str, np.ndarray]:
    """By input the samples, as ascending indices, that are fed NaN or infinity in it; inputs without any are left out.

    Where more than half of the samples hold infinity, only NaN counts. Reads `batch` samples at a time.
    """
    strange: dict[str, list[np.ndarray]] = {}
    unknown: dict[str, list[np.ndarray]] = {}
    for call in feeds.calls(batch):
        for name, array in call.feed.items():
            rows = array.reshape(1, -1) if feeds.whole else array[: len(call.samples)].reshape(len(call.samples), -1)
            if rows.dtype.kind != "f" or np.isfinite(rows).all():
                continue
            strange.setdefault(name, []).append(call.samples[~np.isfinite(rows).all(axis=1)])
            unknown.setdefault(name, []).append(call.samples[np.isnan(rows).any(axis=1)])
    found = {}
    for name, parts in strange.items():
        masks = sum(map(len, parts)) > MASKED_SHARE * feeds.sample_count
        found[name] = np.concatenate(unknown[name] if masks else parts)
    return {name: samples for name, samples in found.items() if len(samples)}


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
