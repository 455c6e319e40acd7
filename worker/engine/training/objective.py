"""L = alpha L_soft + beta L_features + gamma L_hard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from worker.engine.training.batches import Batch
from worker.engine.training.features import Pair, project
from worker.engine.training.losses import (
    binary_cross_entropy,
    divergence,
    hard_cross_entropy,
    log_probabilities,
    log_probabilities_beside,
    normalized_error,
    squared_error,
)
from worker.engine.training.readings import Reading
from worker.engine.training.targets import Target


@dataclass(frozen=True)
class Soft:
    """An output of the student and the teacher's answer to it; `probabilities`: that is what the teacher gives.
    `power`: mean square of its answers to training samples.
    """

    reading: Reading
    teacher: str
    probabilities: bool = False
    power: float = 1.0

    @property
    def as_numbers(self) -> bool:
        """Whether values count: a shift of all scores is no matter to a softmax, to numbers it is. Probabilities are no
        numbers for scores.
        """
        return self.reading.axis is None or not (self.reading.certain or self.probabilities)


@dataclass(frozen=True)
class Hard:
    """An output and its labels."""

    reading: Reading
    target: Target


@dataclass(frozen=True)
class Feature:
    """A pair, and the projection between two widths. `power`: mean square of the teacher's, as in `Soft`."""

    pair: Pair
    projection: torch.Tensor | None = None
    power: float = 1.0


@dataclass(frozen=True)
class Weights:
    """Of the terms; what has none is not computed."""

    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Lessons:
    """What is minimized, over all outputs and features that are taught."""

    weights: Weights
    soft: Sequence[Soft] = ()
    hard: Sequence[Hard] = ()
    features: Sequence[Feature] = ()

    @property
    def wanted(self) -> list[str]:
        readings = [one.reading for one in self.soft] + [one.reading for one in self.hard]
        return list(dict.fromkeys([one.value for one in readings] + [one.pair.student for one in self.features]))

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        """`soft`, `features` and `hard`, those that there are, and their weighted sum as `loss`."""
        rows = {name: batch.rows(value) for name, value in made.items()}
        weights, terms = self.weights, {}
        total = torch.zeros((), device=next(iter(rows.values())).device)
        if self.soft:
            terms["soft"] = sum((self._soft(one, rows, batch) for one in self.soft), torch.zeros_like(total))
            total = total + weights.alpha * terms["soft"]
        if self.features:
            terms["features"] = sum((_feature(one, rows, batch) for one in self.features), torch.zeros_like(total))
            total = total + weights.beta * terms["features"]
        if self.hard:
            terms["hard"] = sum((_hard(one, rows, batch) for one in self.hard), torch.zeros_like(total))
            total = total + weights.gamma * terms["hard"]
        return {**terms, "loss": total}

    def _soft(self, one: Soft, rows: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        found, wanted = rows[one.reading.value], batch.answers[one.teacher]
        if one.reading.axis is None:
            return normalized_error(wanted, found, one.power)
        own = log_probabilities(found) if one.reading.probabilities else found
        scores = log_probabilities_beside(own, wanted) if one.probabilities else wanted
        soft = divergence(scores, own, self.weights.temperature, one.reading.axis)
        return soft + normalized_error(wanted, found, one.power) if one.as_numbers else soft


def _hard(one: Hard, rows: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    found, labels = rows[one.reading.value], batch.labels[one.target.output]
    if one.target.axis is not None:
        scores = log_probabilities(found) if one.reading.probabilities else found
        return hard_cross_entropy(scores, labels, one.target.axis)
    if one.target.binary:
        return binary_cross_entropy(found, labels, one.target.probabilities)
    return squared_error(found, labels, one.target.variance)


def _feature(one: Feature, rows: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    found, wanted = rows[one.pair.student], batch.answers[one.pair.teacher]
    if one.projection is not None and one.pair.axis is not None:
        found = project(found, one.projection, one.pair.axis)
    return normalized_error(wanted, found, one.power)
