"""What stays zero while the rest is trained."""

from collections.abc import Container, Mapping

import numpy as np
import torch
from onnx import numpy_helper

from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import prepared
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
    them and more are; not all, as of those that have yet to learn anything, unless they were something `before`.
    """
    found = {}
    for name, tensor in tensors.items():
        if not is_matrix(tensor):
            continue
        kept, was = tensor.detach() != 0, (before or {}).get(name)
        share = float((~kept).float().mean())
        if LEAST_ZEROS <= share < 1.0 or (was is not None and _are_fewer(array_from(kept), was != 0)):
            found[name] = kept
    return found


def weights_as_uploaded(
    tensors: Mapping[str, torch.Tensor], file: ModelFile, context: PassContext
) -> dict[str, np.ndarray]:
    """By name what the job's model held under it before any pass, of each of `tensors` that is known there; none where
    the `file` that they are of is still that model.

    Preparing renames a weight that BatchNormalization is folded into. Those are looked for only where all of one is
    zero: single zeros of them may be what quantization rounded to.

    Raises:
        ModelFails, OutOfMemory: as `prepared`.

    """
    if context.original is None or context.original == file:
        return {}
    known = _constants(context.original, tensors)
    empty = {name for name, one in tensors.items() if name not in known and is_matrix(one) and not bool(one.any())}
    return known | (_constants(prepared(context.original, context).model, empty) if empty else {})


def _constants(model: ModelFile, names: Container[str]) -> dict[str, np.ndarray]:
    tensors = constants_of(model.load().graph)
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors if name in names}


def _are_fewer(kept: np.ndarray, were: np.ndarray) -> bool:
    return kept.shape == were.shape and bool((were & ~kept).any())
