"""Which epoch is kept, and when there is no more to wait for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from worker.engine.training.judging import Judgement

JUDGEMENTS = ("start", "best", "kept")


@dataclass
class Choice:
    """The last epoch that is as good as the best and improves on what was before.

    Towards the end the learning rate falls to nothing, so that the last epochs are the best ones unless the model
    learns its samples by heart; and of some hundred held-out samples chance alone puts an early epoch one or two
    ahead. As good is what held-out samples do not tell apart, see `Judgement.holds_beside`.
    """

    start: Judgement | None = None
    """Of the weights before training, where they may be kept."""
    best: Judgement | None = None
    """Of the epoch that counted most, or lost least where no metric decides."""
    kept: Judgement | None = None
    """Of the weights that are kept."""
    epoch: int = 0
    """Theirs, counted from 1; 0: those of before."""
    judged: int = 0
    """Epochs that might have been kept."""
    least_loss: float | None = None
    without_gain: int = 0
    """Epochs in a row, up to the last, that were not the best and lost no less than every one before them."""

    def begin(self, start: Judgement) -> None:
        self.start = self.kept = start

    def takes(self, judgement: Judgement, epoch: int) -> bool:
        """Whether the weights of `epoch` are kept in place of those that were."""
        self.judged += 1
        if self.best is None or judgement.better_than(self.best):
            self.best = judgement
        lowers = math.isfinite(judgement.loss) and (self.least_loss is None or judgement.loss < self.least_loss)
        if lowers:
            self.least_loss = judgement.loss
        self.without_gain = 0 if self.best is judgement or lowers else self.without_gain + 1
        taken = judgement.holds_beside(self.best) and (self.start is None or judgement.improves_on(self.start))
        if taken:
            self.kept, self.epoch = judgement, epoch
        return taken

    def facts(self) -> dict[str, Any]:
        """All but what `tensors` has, as JSON."""
        given = {name: getattr(self, name) for name in JUDGEMENTS}
        return {**vars(self), **{name: one and one.facts() for name, one in given.items()}}

    def tensors(self) -> dict[str, torch.Tensor]:
        """By judgement what it counts of each sample, each in memory of its own."""
        given = {name: getattr(self, name) for name in JUDGEMENTS}
        return {name: torch.tensor(one.each) for name, one in given.items() if one and one.each is not None}

    @classmethod
    def restored(cls, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Self:
        """What `facts` and `tensors` gave."""
        made = cls(**facts)
        for name in JUDGEMENTS:
            if facts[name] is not None:
                each = tensors[name].numpy() if name in tensors else None
                setattr(made, name, Judgement(**facts[name], each=each))
        return made
