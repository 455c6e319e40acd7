"""An average of the weights over the steps: it jitters less than the last ones do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

Tensors = Mapping[str, torch.Tensor]


class Average:
    """Exponential moving average (Polyak & Juditsky 1992, with the decay that short runs need).

    The decay of step t, from 0, is min(decay, (1 + t) / (10 + t)): the average covers about the last tenth of the
    steps until it covers 1 / (1 - decay) of them. None: no average, the weights themselves.
    """

    def __init__(self, tensors: Tensors, decay: float | None) -> None:
        self.decay = decay
        self.tensors = {} if decay is None else {name: one.detach().clone() for name, one in tensors.items()}

    def update(self, tensors: Tensors, step: int) -> None:
        if self.decay is None:
            return
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, average in self.tensors.items():
                average.lerp_(tensors[name].detach(), share)

    @contextmanager
    def in_place_of(self, tensors: Tensors) -> Iterator[None]:
        """Within, `tensors` hold the average; afterwards, bit for bit what they held."""
        self._swap(tensors)
        try:
            yield
        finally:
            self._swap(tensors)

    def _swap(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, average in self.tensors.items():
                held = tensors[name].detach().clone()
                tensors[name].copy_(average)
                average.copy_(held)
