"""What stays zero while the rest is trained."""

from collections.abc import Mapping

import torch

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


def zeros_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Masks of the matrices and filters that were pruned: `LEAST_ZEROS` of them and more are exactly zero."""
    found = {}
    for name, tensor in tensors.items():
        kept = tensor.detach() != 0
        if is_matrix(tensor) and float((~kept).float().mean()) >= LEAST_ZEROS:
            found[name] = kept
    return found
