"""The placement is chosen by measuring whole files; what is measured is kept for the manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine import timing
from worker.engine.calibration import Settings, calibrate
from worker.engine.graph_file import read_graph
from worker.engine.int8 import choosing
from worker.engine.int8.building import builder, maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.choosing import ROUNDS, Choice, choose_placement
from worker.engine.int8.costs import Costs, Profiles
from worker.engine.int8.division import cheapest
from worker.engine.int8.eligible import eligible
from worker.engine.int8.placement import Placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.profiling import NodeTime


def _convolutions(side: int) -> onnx.ModelProto:
    """`x` (1, 32, side, side): a 3 x 3 and a 1 x 1 convolution with a Relu between."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((64, 32, 3, 3)).astype(np.float32),
        "v": generator.standard_normal((64, 64, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "v"], ["y"], "second"),
    ]
    shape: list[int | str | None] = [1, 32, side, side]
    floats = TensorProto.FLOAT
    return networks.assemble(nodes, {"x": (floats, shape)}, {"y": (floats, [1, 64, side, side])}, weights)


def _choose(side: int, saved: Callable[..., ModelFile], context: SamplesContext) -> tuple[Choice, PassContext]:
    choice, _, given = _chosen(_convolutions(side), networks.normal(2, 32, side, side, seed=1), saved, context)
    return choice, given


def _chosen(
    model: onnx.ModelProto, x: np.ndarray, saved: Callable[..., ModelFile], context: SamplesContext
) -> tuple[Choice, Placement, PassContext]:
    """The choice, and what it is made from."""
    file = saved(model)
    given = context(model, x=x)
    everything = eligible(units_of(read_graph(file)), False, None, [])
    calibration = calibrate(file, Settings("minmax"), given, lambda _share: None, tensors_to_calibrate(everything))
    maps = maps_of(everything, calibration)

    def build(placement: Placement, folder: Path) -> ModelFile:
        return builder(file, lambda one: plain_numbers(one, maps, Rounding(unsaturated=True)))(placement, folder)

    choice = choose_placement(file, everything, build, given, lambda all_, costs, _: cheapest(all_, costs))
    return choice, everything, given


def test_candidates_are_measured_and_one_of_them_is_kept(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    choice, _ = _choose(56, saved, context)
    assert {"float", "everything"} <= set(choice.ratios)
    assert all(1 <= len(values) <= ROUNDS for values in choice.ratios.values())
    assert set(choice.costs.units) == {"first", "second"}
    assert all(milliseconds > 0 for pair in choice.costs.units.values() for milliseconds in pair)
    left = {"first", "second"} - choice.placement.quantized
    assert all("slower in float" not in choice.placement.reasons[name] for name in left)
    assert set(choice.placement.reasons) == left
    assert choice.manifest()["ratios"].keys() == choice.ratios.keys()


@pytest.mark.parametrize(
    ("rounds", "in_int8", "words"),
    [
        ([1.5] * 5, True, "1.50 times as fast; the fastest was kept"),
        ([0.8] * 5, False, "0.80 times as fast; the fastest was kept"),
        ([1.2, 0.9, 1.2, 0.9, 1.2], False, "1.20 times as fast; that is no gain beyond noise (rounds: 5), and float"),
        ([3.0], True, "3.00 times as fast; the fastest was kept"),
        ([1.2], False, "1.20 times as fast; that is no gain beyond noise (rounds: 1), and float is kept"),
    ],
    ids=["faster", "slower", "rounds-disagree", "one-round-and-clearly", "one-round-and-hardly"],
)
def test_int8_has_to_be_faster_beyond_noise(
    rounds: list[float],
    in_int8: bool,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    saved: Callable[..., ModelFile],
    context: SamplesContext,
) -> None:
    """Measurements are given here, so that the machine has no say; a slow model is timed in few rounds."""
    monkeypatch.setattr(
        choosing, "times_as_fast", lambda files, *_: [[1.0] * len(rounds), *([rounds] * (len(files) - 1))]
    )
    monkeypatch.setattr(timing, "LEAST_MILLISECONDS", 0.0)
    choice, _ = _choose(8, saved, context)
    assert choice.placement.quantized == ({"first", "second"} if in_int8 else set())
    assert words in choice.in_words()[0]
    slower = [reason for reason in choice.placement.reasons.values() if "slower than in float here" in reason]
    assert bool(slower) == (max(rounds) < 1)
    everything = choice.placement if in_int8 else Placement.of(choice.placement.units, ["first", "second"])
    assert Choice.from_numbers(choice.in_numbers(everything), everything) == choice


def test_what_ran_in_float_is_not_called_slow_in_int8(
    saved: Callable[..., ModelFile], context: SamplesContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product is written without the Q behind its Relu that the runtime wants."""
    monkeypatch.setattr(timing, "LEAST_MILLISECONDS", 0.0)  # with AMX it takes less now and then
    monkeypatch.setattr(Placement, "emits_float", lambda _placement, unit: unit.node.op_type == "Gemm")
    model = networks.parse("network (float[64,512] x) => (float[64,512] y) { p = Gemm(x, w) r = Relu(p) y = Tanh(r) }")
    model.graph.node[0].name = "product"
    model.graph.initializer.append(onnx.numpy_helper.from_array(networks.normal(512, 512), "w"))
    choice, everything, _ = _chosen(model, networks.normal(64, 512), saved, context)
    assert choice.ran_in_float == {"product": "FusedGemm"}
    reason = {"product": choosing.RAN_IN_FLOAT.format("FusedGemm")}
    left = Choice(choice.placement.without(["product"], "slower"), choice.ratios, choice.costs, choice.ran_in_float)
    assert Choice.from_numbers(left.in_numbers(everything), everything).placement.reasons == reason
    if not choice.placement.quantized:
        assert choice.placement.reasons == reason


def test_a_call_too_short_to_time_is_not_measured(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    """Its kernels take microseconds: noise would decide, and differently each time."""
    choice, _ = _choose(4, saved, context)
    assert choice.ratios == {}
    assert choice.placement.quantized == {"first", "second"}


def test_quantizing_an_input_of_the_graph_is_paid_for(saved: Callable[..., ModelFile]) -> None:
    """No kernel bears its name. What an Add of two inputs saves is less than converting both takes."""
    image = "float[1,64,56,56]"
    model = networks.parse(f"network ({image} x, {image} z) => ({image} y) {{ y = Add(x, z) }}")
    model.graph.node[0].name = "sum"
    units = units_of(read_graph(saved(model)))
    everything = Placement.of(units, ["sum"])
    in_int8 = [
        NodeTime("y_QuantizeLinear", "QuantizeLinear", "conversion", 0.1, 64 * 56 * 56),
        NodeTime("sum", "QLinearAdd", "int8", 0.05, 64 * 56 * 56),
    ]
    in_float = [NodeTime("sum", "Add", "float", 0.06, 64 * 56 * 56)]
    kept = cheapest(everything, Costs.of(everything, Profiles(in_float, in_int8)))
    assert not kept.quantized
