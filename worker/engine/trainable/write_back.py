"""Trained weights back into the user's own file: what training did not change stays byte for byte."""

from collections.abc import Mapping
from pathlib import Path

import torch

from worker.engine.model_file import ModelFile
from worker.engine.overwriting import overwrite
from worker.engine.trainable.arrays import array_from


def write_back(model: ModelFile, state: Mapping[str, torch.Tensor], folder: Path) -> ModelFile:
    """A copy of `model` in the empty `folder` with the tensors of `state` under their names, each in its own dtype.

    Raises:
        ValueError: the model has no constant of a name, or one of another shape.

    """
    return overwrite(model, {name: array_from(tensor) for name, tensor in state.items()}, folder)
