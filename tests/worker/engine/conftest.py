"""A context over data made here, as a pass gets it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

SamplesContext = Callable[..., PassContext]


@pytest.fixture
def context(tmp_path: Path) -> SamplesContext:
    """`context(model, name=array, ...)`: arrays by input, the first axis counting samples."""

    def make(model: onnx.ModelProto, **arrays: np.ndarray) -> PassContext:
        feeds: Feeds = match_arrays(inputs_of(model), arrays, "data")
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        return PassContext(scratch=scratch, feeds=feeds, seed=0, threads=1)

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., ModelFile]:
    """`saved(model, folder)`: the model as a file, its shapes inferred as preparation leaves them."""

    def save(model: onnx.ModelProto, folder: str = "model") -> ModelFile:
        return ModelFile(networks.save(onnx.shape_inference.infer_shapes(model), tmp_path / folder))

    return save
