"""What stays zero while the rest is trained."""

from collections.abc import Mapping

import numpy as np
import torch

from worker.engine.trainable.arrays import array_from
from worker.engine.training.hooks import Hooks
from worker.engine.training.optimizers import is_matrix

# Fewer exact zeros than this share are chance, or one unit that died; pruning leaves more.
LEAST_ZEROS = 0.05


class Masks(Hooks):
    """`kept` by weight: bool of its shape, false where it is zero and stays so."""

    def __init__(self, kept: Mapping[str, torch.Tensor]) -> None:
        self.kept = dict(kept)

    def gradients(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Without them neither the length of the gradient nor the optimizer's memory knows of what is gone."""
        for name in self.kept.keys() & tensors.keys():
            gradient = tensors[name].grad
            if gradient is not None:
                gradient.masked_fill_(~self.kept[name], 0.0)

    def constrain(self, tensors: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name in self.kept.keys() & tensors.keys():
                tensors[name].masked_fill_(~self.kept[name], 0.0)


def zeros_of(
    tensors: Mapping[str, torch.Tensor], before: Mapping[str, np.ndarray] | None = None
) -> dict[str, torch.Tensor]:
    """Masks of the matrices and filters that were pruned: something is zero that was not `before`, or `LEAST_ZEROS` of
    them and more are; not all, as of those that have yet to learn anything.
    """
    found = {}
    for name, tensor in tensors.items():
        kept = tensor.detach() != 0
        share = float((~kept).float().mean())
        if is_matrix(tensor) and 0.0 < share < 1.0:
            was = (before or {}).get(name)
            if share >= LEAST_ZEROS or (was is not None and _are_fewer(array_from(kept), was != 0)):
                found[name] = kept
    return found


def _are_fewer(kept: np.ndarray, were: np.ndarray) -> bool:
    return kept.shape == were.shape and bool((were & ~kept).any())
