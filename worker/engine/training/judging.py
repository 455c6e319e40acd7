"""How good the weights are, on samples that were not trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.training.batches import Batch, Batches

# Terms are of order 1; what float32 makes of equal answers is a few millionths.
LEAST_GAIN, LEAST_SHARE = 1e-5, 1e-3
# In standard errors: where samples are many, chance goes beyond it once in fifteen times.
CLEARLY = 1.5
# As much more loss says that the model is wrong with certainty where it is wrong.
MOST_LOSS = 2.0


class Objective(Protocol):
    """What is minimized."""

    @property
    def wanted(self) -> list[str]:
        """Names of the values that it reads of what is trained."""

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        """Its terms by name, each a scalar, and their weighted sum as `loss`."""


@dataclass(frozen=True)
class Score:
    """A metric that counts: of each sample of a call, 1 at best, or NaN, which is not counted. More is better."""

    name: str
    measure: Callable[[Mapping[str, torch.Tensor], Batch], np.ndarray]
    decides: bool
    """Whether it chooses the epoch, or the loss does."""


@dataclass(frozen=True)
class Judgement:
    """Of held-out samples. `each`: what the metric counts of each, NaN where it counts nothing."""

    loss: float
    metric: str | None = None
    value: float | None = None
    decides: bool = False
    each: np.ndarray | None = field(default=None, repr=False, compare=False)

    def better_than(self, other: "Judgement") -> bool:
        if not np.isfinite(self.loss):
            return False
        return not np.isfinite(other.loss) or self._rank() > other._rank()

    def holds_beside(self, best: "Judgement") -> bool:
        """Whether it is as good as the best there was: where a metric decides, as far as samples tell them apart, and
        unless its loss is a multiple.
        """
        if not np.isfinite(self.loss):
            return False
        alike = self.decides and self._gain(best) >= -CLEARLY and self.loss <= MOST_LOSS * best.loss
        return alike or self is best

    def improves_on(self, before: "Judgement") -> bool:
        """Whether it is worth other weights than those of before: by the metric, where one decides and tells them
        apart, else by the loss, of which a few rounded bits are no reason. Any finite loss is, where that of before
        was none.
        """
        if not np.isfinite(self.loss) or not np.isfinite(before.loss):
            return self.better_than(before)
        gain = self._gain(before) if self.decides else 0.0
        if abs(gain) > CLEARLY:
            return gain > 0
        return before.loss - self.loss > max(LEAST_GAIN, LEAST_SHARE * abs(before.loss))

    def _gain(self, other: "Judgement") -> float:
        """What the metric counts more than beside `other`, in standard errors of the difference, sample by sample: for
        samples that are right or wrong, McNemar's statistic.
        """
        if self.each is None or other.each is None:
            return 0.0
        differences = self.each - other.each
        differences = differences[~np.isnan(differences)]
        noise = np.sqrt(np.square(differences).sum())
        return float(differences.sum() / noise) if noise else 0.0

    def _rank(self) -> tuple[float, ...]:
        return (self.value, -self.loss) if self.decides and self.value is not None else (-self.loss,)

    def facts(self) -> dict[str, Any]:
        """All but `each`, as JSON has it."""
        return {"loss": self.loss, "metric": self.metric, "value": self.value, "decides": self.decides}

    def in_words(self) -> str:
        value = "" if self.value is None else f", {self.metric} {self.value:.4f}"
        return f"loss {self.loss:.4g}{value}"


class Judge:
    """The loss, and a metric where outputs are such that one counts. `module` is left in `eval()` mode."""

    def __init__(self, module: Any, objective: Objective, batches: Batches, score: Score | None = None) -> None:
        self.module, self.objective, self.batches, self.score = module, objective, batches, score

    def __call__(self) -> Judgement:
        self.module.eval()
        total, scores = 0.0, []
        with torch.no_grad():
            for batch in self.batches.in_order():
                made = self.module(batch.feed, self.objective.wanted)
                total += float(self.objective(made, batch)["loss"]) * len(batch.samples)
                if self.score is not None:
                    scores.append(self.score.measure(made, batch))
        loss = total / len(self.batches.samples)
        each = np.concatenate(scores) if scores else np.empty(0)
        counted = each[~np.isnan(each)]
        if self.score is None or not counted.size:
            return Judgement(loss)
        return Judgement(loss, self.score.name, float(counted.mean()), self.score.decides, each)
