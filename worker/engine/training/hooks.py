"""Where something else than the optimizer has a hand in training."""

from collections.abc import Mapping
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]


class Hooks:
    """Nothing is done. Subclasses keep zeros, let their share grow, hold scales; what they hold beside the tensors that
    are trained goes into checkpoints by `state`.
    """

    def rule(self) -> Any:
        """What is done, as JSON has it, where the arguments of training do not say it."""
        return None

    def start(self, tensors: Tensors, steps: int) -> None:
        """Before anything is judged or trained, told how many steps there will be; before `load_state` as well."""

    def epoch(self, number: int, epochs: int, tensors: Tensors) -> None:
        """Before the epoch `number`, from 0."""

    def step(self, number: int, tensors: Tensors) -> None:
        """Before the step `number`, from 0, of all epochs."""

    def gradients(self, tensors: Tensors) -> None:
        """Between the gradients and the optimizer's step."""

    def constrain(self, tensors: Tensors) -> None:
        """After the optimizer's step, and on the average of the weights: bring them back to where they may be."""

    def settled(self) -> bool:
        """Whether the weights as they are may be kept; at the end of the last epoch they must be."""
        return True

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Tensors) -> None:
        """Set what `state` gave."""
