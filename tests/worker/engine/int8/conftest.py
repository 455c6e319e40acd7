"""A model of which one node loses much in int8, as passes meet it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.affine import unsigned
from worker.engine.calibration import Settings, calibrate
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import builder, maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.eligible import eligible
from worker.engine.int8.placement import Placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

Build = Callable[[Placement, Path], ModelFile]
# The float model, everything in int8, what writes a placement, and data.
Spoiled = tuple[ModelFile, Placement, Build, PassContext]


def _chain() -> onnx.ModelProto:
    """`x` (N, 16) -> `y` (N, 4): three products, `spoiled` behind what runs in float alone."""
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in (("a", (16, 16)), ("b", (16, 16)), ("c", (16, 4)))
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["first"], "first"),
        helper.make_node("Softplus", ["first"], ["active"], "softplus"),
        helper.make_node("Gemm", ["active", "b"], ["second"], "spoiled"),
        helper.make_node("Gemm", ["second", "c"], ["y"], "last"),
    ]
    floats = TensorProto.FLOAT
    return networks.assemble(nodes, {"x": (floats, ["N", 16])}, {"y": (floats, ["N", 4])}, weights)


@pytest.fixture
def spoiled(saved: Callable[..., ModelFile], context: SamplesContext) -> Spoiled:
    """A chain whose middle product reads its input through a range a hundred times too narrow."""
    model = _chain()
    file = saved(model)
    given = context(model, x=np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32))
    everything = eligible(units_of(read_graph(file)), False, None, [])
    calibration = calibrate(file, Settings("minmax"), given, lambda _share: None, tensors_to_calibrate(everything))
    maps = maps_of(everything, calibration)
    maps["active"] = unsigned(0.0, calibration.ranges["active"].high / 100)
    build = builder(file, lambda placement: plain_numbers(placement, maps, Rounding(unsaturated=True)))
    return file, everything, build, given
