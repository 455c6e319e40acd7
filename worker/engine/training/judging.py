"""How good the weights are, on samples that were not trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.training.batches import Batch, Batches

# Terms are of order 1; what float32 makes of equal answers is a few millionths.
LEAST_GAIN, LEAST_SHARE = 1e-5, 1e-3


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
    """Of held-out samples."""

    loss: float
    metric: str | None = None
    value: float | None = None
    decides: bool = False

    def better_than(self, other: "Judgement | None") -> bool:
        if not np.isfinite(self.loss):
            return False
        return other is None or not np.isfinite(other.loss) or self._rank() > other._rank()

    def improves_on(self, before: "Judgement") -> bool:
        """Whether it is worth other weights than those of before: by the metric, where one decides and differs; a few
        rounded bits of the loss are not. Any finite loss is, where that of before was none.
        """
        if not np.isfinite(before.loss):
            return self.better_than(before)
        if self.decides and self.value is not None and before.value is not None and self.value != before.value:
            return self.better_than(before)
        return self.better_than(before) and before.loss - self.loss > max(LEAST_GAIN, LEAST_SHARE * abs(before.loss))

    def _rank(self) -> tuple[float, ...]:
        return (self.value, -self.loss) if self.decides and self.value is not None else (-self.loss,)

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
        counted = np.concatenate(scores) if scores else np.empty(0)
        counted = counted[~np.isnan(counted)]
        if self.score is None or not counted.size:
            return Judgement(loss)
        return Judgement(loss, self.score.name, float(counted.mean()), self.score.decides)
