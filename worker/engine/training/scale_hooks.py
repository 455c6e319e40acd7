"""Learned scales in training: held within bounds after every step, and at rest for its last fifth.

Weights that settle while scales still move end on a grid that they were not trained on: Y. Bhalgat et al., LSQ+,
https://arxiv.org/abs/2004.09576, stop learning scales early for the same reason.
"""

from collections.abc import Mapping
from typing import Any

import torch

from worker.engine.training.hooks import Hooks, Tensors
from worker.engine.training.int8_simulation import LEAST_RATIO, Scale

RESTING_SHARE = 0.2


def rests_from(steps: int) -> int:
    """The first of so many steps in which scales are not learned any more."""
    return round((1 - RESTING_SHARE) * steps)


class ScaleHooks(Hooks):
    """`scales` by the names under which their ratios are trained; `others`, as masks, are asked as well."""

    def __init__(self, scales: Mapping[str, Scale], others: Hooks) -> None:
        self._scales, self._others = scales, others
        self._rests_from, self._resting = 0, False

    def rule(self) -> Any:
        return self._others.rule()

    def start(self, tensors: Tensors, steps: int) -> None:
        self._rests_from = rests_from(steps)
        self._others.start(tensors, steps)

    def epoch(self, number: int, epochs: int, tensors: Tensors) -> None:
        self._others.epoch(number, epochs, tensors)

    def step(self, number: int, tensors: Tensors) -> None:
        self._resting = number >= self._rests_from
        self._others.step(number, tensors)

    def gradients(self, tensors: Tensors) -> None:
        if self._resting:
            for name in self._scales:
                tensors[name].grad = None
        self._others.gradients(tensors)

    def constrain(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, scale in self._scales.items():
                tensors[name].clamp_(LEAST_RATIO, scale.most)
        self._others.constrain(tensors)

    def settled(self) -> bool:
        return self._others.settled()

    def state(self) -> dict[str, torch.Tensor]:
        return self._others.state()

    def load_state(self, state: Tensors) -> None:
        self._others.load_state(state)
