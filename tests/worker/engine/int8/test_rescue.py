"""Where too much is lost, the nodes that lose it stay in float; where enough is kept, nothing is touched."""

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
from worker.engine.fidelity import Floor, measure_fidelity
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import builder, maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.eligible import eligible
from worker.engine.int8.fidelity import layer_sqnr_db
from worker.engine.int8.placement import Placement
from worker.engine.int8.rescue import SENSITIVE, rescue
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

Build = Callable[[Placement, Path], ModelFile]


def _chain() -> onnx.ModelProto:
    """`x` (N, 16) -> `y` (N, 4): three products, `spoiled` in the middle."""
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in (("a", (16, 16)), ("b", (16, 16)), ("c", (16, 4)))
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["first"], "first"),
        helper.make_node("Relu", ["first"], ["active"], "relu"),
        helper.make_node("Gemm", ["active", "b"], ["second"], "spoiled"),
        helper.make_node("Gemm", ["second", "c"], ["y"], "last"),
    ]
    floats = TensorProto.FLOAT
    return networks.assemble(nodes, {"x": (floats, ["N", 16])}, {"y": (floats, ["N", 4])}, weights)


@pytest.fixture
def spoiled(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> tuple[ModelFile, Placement, Build, PassContext]:
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


def test_the_node_that_loses_is_left_in_float(spoiled: tuple[ModelFile, Placement, Build, PassContext]) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(file, everything, made, build, Floor(20.0), given)
    assert kept.before.sqnr_db < 5
    # Three products in 8 bits over exact ranges keep well above 25 dB.
    assert kept.after.sqnr_db >= 20
    assert kept.placement.reasons["spoiled"] == SENSITIVE
    assert "last" in kept.placement.quantized
    assert min(kept.sensitivities_db, key=lambda name: kept.sensitivities_db[name]) == "spoiled"
    assert measure_fidelity(file, kept.model, given, np.arange(32)) == kept.after


def test_a_model_above_the_floor_is_not_touched(spoiled: tuple[ModelFile, Placement, Build, PassContext]) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(file, everything, made, build, Floor(-50.0), given)
    assert kept.model == made
    assert kept.placement is everything
    assert kept.in_words() == []


def test_an_account_by_layer_shows_where_it_was_lost(
    spoiled: tuple[ModelFile, Placement, Build, PassContext],
) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    found = layer_sqnr_db(file, made, everything, given, 8)
    assert found["spoiled"] < 5
    assert set(found) == {"first", "spoiled", "last"}


def test_where_nothing_holds_everything_is_left_in_float(
    spoiled: tuple[ModelFile, Placement, Build, PassContext],
) -> None:
    """The floor is a promise: one node too many in 8 bits is as bad as all."""
    file, everything, build, given = spoiled
    alone = Placement(everything.units, frozenset(["spoiled"]))
    kept = rescue(file, alone, build(alone, given.scratch / "built"), build, Floor(20.0), given)
    assert kept.placement.quantized == frozenset()
    assert kept.after.sqnr_db >= 20
