"""Quantization passes applied to small models, and again with the choices of their manifests."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.passes.registry import load_pass


def apply_pass(
    name: str, model: onnx.ModelProto, folder: Path, arrays: dict[str, np.ndarray], **parameters: Any
) -> PassResult:
    """`parameters` are the pass's own, and `deadline`, `instruction_set` and `phase` of its context."""
    file = ModelFile(networks.save(model, folder / "model"))
    feeds: Feeds = match_arrays(inputs_of(file.structure()), arrays, "the data")
    scratch = folder / "scratch"
    scratch.mkdir()
    deadline, least = parameters.pop("deadline", float("inf")), parameters.pop("instruction_set", None)
    phase = parameters.pop("phase", lambda _name: None)
    config = CATALOGUE[name].config.model_validate({"pass": name, **parameters})
    context = PassContext(scratch, feeds, 0, 1, deadline=deadline, instruction_set=least, phase=phase)
    return load_pass(name)(file, config, context)


def replayed(result: PassResult, folder: Path, model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> PassResult:
    """The pass run again with the choices of its manifest."""
    parameters = dict(result.manifest["replay"])
    folder.mkdir()
    return apply_pass(parameters.pop("pass"), model, folder, arrays, **parameters)


def random_images(count: int, channels: int = 3) -> np.ndarray:
    """`(count, channels, 16, 16)` float32."""
    return np.random.default_rng(1).standard_normal((count, channels, 16, 16)).astype(np.float32)
