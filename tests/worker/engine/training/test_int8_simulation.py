"""A graph in 8 bits as torch trains it, beside the file that ONNX Runtime runs."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch

from app.recipes.quantization import WeightBits
from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine.affine import unsigned
from worker.engine.calibration import Settings, calibrate
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import Numbers, builder, maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.grids import GRIDS, GriddedWeight, gridded
from worker.engine.int8.placement import Placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.trainee import trainee
from worker.engine.int8.units import Role, units_of
from worker.engine.int8.weights import encode, map_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import ALL, NONE, open_session, run_session, session_options
from worker.engine.trainable.arrays import array_from, tensor_from
from worker.engine.trainable.importing import import_model
from worker.engine.training.int8_simulation import Activation, Int8Simulation, Scale, Weight

IMAGES, ROWS = normal(4, 8, 10, 10, seed=9), normal(16, 8, seed=9)
FILTER, DEPTHWISE, BIAS, MATRIX = normal(8, 8, 3, 3) / 8, normal(8, 1, 3, 3), normal(8), normal(8, 8) / 3
LINES, VOLUMES = normal(8, 8, 30, seed=9), normal(4, 8, 5, 6, 7, seed=9)
# Without VNNI kernels saturate; weights whose products do not make the comparison hold on any processor.
ROUNDING = Rounding(unsaturated=True)
# Kernels sum integers and torch floats: what falls between two codes may fall to the other one.
LARGEST_SHARE_OFF = 0.02


@dataclass(frozen=True)
class Case:
    id: str
    body: str
    x: np.ndarray
    constants: dict[str, np.ndarray]


CONV = "c = Conv<pads = [1, 1, 1, 1]>(x, w, b)"
PRODUCTS = {"m": MATRIX, "b": BIAS}
CONVOLUTION = {"w": FILTER, "b": BIAS}
LINE = {"w": normal(8, 8, 3) / 5, "b": BIAS}
CARRIERS = "p = MaxPool<kernel_shape = [2, 2]>(c) t = Transpose<perm = [0, 2, 3, 1]>(p) y = MatMul(t, m)"
READ_IN_FLOAT = "e = Exp(c) f = Conv(e, w) g = Erf(e) h = GlobalAveragePool(g) i = GlobalAveragePool(f) y = Add(h, i)"
UNIT = {"low": np.float32(0), "high": np.float32(1)}
CASES = [
    Case("conv-relu", f"{CONV} y = Relu(c)", IMAGES, CONVOLUTION),
    Case("conv-clip", f"{CONV} y = Clip(c, low, high)", IMAGES, CONVOLUTION | UNIT),
    Case("conv-without-a-bias", "y = Conv(x, w)", IMAGES, {"w": FILTER}),
    Case("depthwise", "y = Conv<group = 8>(x, w)", IMAGES, {"w": DEPTHWISE}),
    Case("one-axis", "c = Conv<pads = [1, 1]>(x, w, b) r = Relu(c) y = MaxPool<kernel_shape = [2]>(r)", LINES, LINE),
    Case("three-axes", "c = Conv(x, w) y = Add(c, c)", VOLUMES, {"w": normal(8, 8, 3, 3, 3) / 8}),
    Case("residual", f"{CONV} r = Relu(c) s = Add(r, x) y = Relu(s)", IMAGES, CONVOLUTION),
    Case("constant-operand", f"{CONV} y = Add(c, a)", IMAGES, CONVOLUTION | {"a": normal(8, 1, 1)}),
    Case("carriers", f"{CONV} {CARRIERS}", IMAGES, CONVOLUTION | PRODUCTS),
    Case("swish-and-pool", f"{CONV} s = Sigmoid(c) p = Mul(c, s) y = GlobalAveragePool(p)", IMAGES, CONVOLUTION),
    Case("read-in-float-too", f"{CONV} {READ_IN_FLOAT}", IMAGES, CONVOLUTION),
    Case("gemm-at-the-end", "h = Gemm(x, m, b) r = Relu(h) y = Gemm<transB = 1>(r, m, b)", ROWS, PRODUCTS),
    Case("product-and-sum", "h = MatMul(x, m) s = Add(h, b) r = Relu(s) y = MatMul(r, m)", ROWS, PRODUCTS),
]


@dataclass(frozen=True)
class Simulated:
    """The file, and the module that was made to compute as it does."""

    made: ModelFile
    module: torch.nn.Module
    feed: dict[str, np.ndarray]

    def in_torch(self) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = self.module({name: tensor_from(array) for name, array in self.feed.items()})
        return {name: array_from(value) for name, value in found.items()}

    def in_runtime(self, level: str) -> dict[str, np.ndarray]:
        session = open_session(self.made.path, 1, session_options(1, level))
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, run_session(session, self.feed), strict=True))


def simulated(model: onnx.ModelProto, context: PassContext, bits: WeightBits = 8) -> Simulated:
    """Everything in int8 that has a kernel."""
    file = ModelFile(networks.save(model, context.scratch / "prepared"))
    units = units_of(read_graph(file))
    placement = Placement.of(units, [unit.name for unit in units])
    calibration = calibrate(file, Settings("minmax"), context, lambda _share: None, tensors_to_calibrate(placement))
    maps = maps_of(placement, calibration)
    plain = plain_numbers(placement, maps, ROUNDING)
    weighted = [unit for unit in placement.in_int8 if unit.role is Role.WEIGHTED]
    weights = gridded(weighted, [unit.name for unit in weighted if bits != 8], bits, plain.codes, ROUNDING)
    start = trainee(file, placement, {}, weights, context.scratch / "trainee")
    module, simulation = import_model(start), Int8Simulation.of(placement, maps, weights)
    module.arithmetic = simulation
    numbers = Numbers(simulation.maps(), simulation.codes({unit.name: unit.weight_values for unit in weighted}))
    made = builder(start, lambda _placement: numbers)(placement, context.scratch / "made")
    return Simulated(made, module, next(context.feeds.calls(context.feeds.sample_count)).feed)


def _compared(one: Simulated, level: str) -> tuple[float, float]:
    """The share of elements that are off by more than a thousandth of the largest, and the worst error over that."""
    found, wanted = one.in_torch()["y"], one.in_runtime(level)["y"]
    assert found.shape == wanted.shape
    error = np.abs(found - wanted) / np.abs(wanted).max()
    return float((error > 1e-3).mean()), float(error.max())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("level", [NONE, ALL], ids=["as-written", "as-kernels-run-it"])
def test_torch_computes_what_the_file_does(case: Case, level: str, context: SamplesContext) -> None:
    rank = ",".join(["N", *(str(size) for size in case.x.shape[1:])])
    out = ",".join("Nkhvd"[: case.x.ndim])
    model = prepared(f"network (float[{rank}] x) => (float[{out}] y) {{ {case.body} }}", **case.constants)
    share, worst = _compared(simulated(model, context(model, x=case.x)), level)
    assert share < LARGEST_SHARE_OFF
    # One code of 256, of a tensor that others are then made of.
    assert worst < 3 / 128


@pytest.mark.parametrize("bits", [4, 2, "ternary", "binary"], ids=str)
def test_fewer_bits_are_the_same_kernels(bits: WeightBits, context: SamplesContext) -> None:
    body = f"{CONV} r = Relu(c) y = Conv(r, v)"
    constants = {"w": FILTER, "b": BIAS, "v": normal(8, 8, 3, 3, seed=3)}
    model = prepared(f"network (float[N,8,10,10] x) => (float[N,8,h,v] y) {{ {body} }}", **constants)
    one = simulated(model, context(model, x=IMAGES), bits)
    share, worst = _compared(one, ALL)
    assert share < LARGEST_SHARE_OFF
    assert worst < 3 / 128
    codes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in one.made.load().graph.initializer}
    levels = {4: 16, 2: 4, "ternary": 3, "binary": 2}[bits]
    assert all(len(np.unique(array)) <= levels for array in codes.values() if array.dtype == np.int8 and array.size > 8)


def test_convnet_keeps_its_outputs(context: SamplesContext) -> None:
    images = normal(8, 3, 16, 16, seed=4)
    model = onnx.shape_inference.infer_shapes(networks.convnet())
    one = simulated(model, context(model, image=images))
    found, wanted = one.in_torch()["logits"], one.in_runtime(ALL)["logits"]
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def _slopes(first: float) -> torch.Tensor:
    """Of the loss by the ratios of 64 channels in 8 bits, `(64,)`; weights of the first are so many times as large."""
    rows = normal(64, 576) * 0.05
    rows[0] *= first
    start = encode(rows, map_of(rows), rows.shape, 0)
    weight = Weight(GriddedWeight(GRIDS[8], start), Scale.of(start.scale))
    made = tensor_from(normal(16, 576, seed=1)) @ weight.round(tensor_from(rows)).T
    (made - tensor_from(normal(16, 64, seed=2))).square().mean().backward()
    found: torch.Tensor = weight.scale.ratio.grad
    return found


@pytest.mark.parametrize("first", [1e-3, 1e-4, 1e-10, 1e-20, 1e-36, 0.0])
def test_a_channel_that_died_leaves_the_others_their_share_of_the_gradient(first: float) -> None:
    """All of it is cut to one length: what is long without end would leave nothing."""
    alike, beside = _slopes(1.0), _slopes(first)
    assert torch.isfinite(beside).all()
    assert torch.allclose(beside[1:], alike[1:])
    # At a thousandth, a tenth of the least that is divided by, its own is about ten times as long as another's.
    assert beside.norm() < 5 * alike.norm()


def test_scales_of_usual_sizes_take_the_published_steps() -> None:
    start = np.array([2e-5, 1e-3, 3e-3, 8e-4], np.float32)
    published = 1 / (np.sqrt(576 * 127) * tensor_from(start).square())
    assert torch.equal(Scale.of(start).balance(576, 127), published)
    single = np.asarray(0.02, np.float32)
    assert float(Scale.of(single).balance(1, 1)) == float(1 / tensor_from(single).square())


@pytest.mark.parametrize("value", [0.0, 1.0, 100.0])
def test_a_tensor_that_was_zero_in_calibration_has_a_gradient(value: float) -> None:
    one = Activation(Scale.of(unsigned(0, 0).scale), 0, 255)
    one.round(torch.full((4, 8), value)).sum().backward()
    assert float(one.scale.ratio.grad.abs()) < 1e-6


def test_a_bias_of_a_channel_that_died_behind_a_tensor_of_zeros_is_a_number(context: SamplesContext) -> None:
    """Its scale is the product of both, and that is 0 in float32."""
    weights = FILTER.copy()
    weights[0] *= 1e-12
    model = prepared("network (float[N,8,10,10] x) => (float[N,8,h,v] y) { y = Conv(x, w, b) }", w=weights, b=0 * BIAS)
    one = simulated(model, context(model, x=0 * IMAGES))
    assert not one.in_torch()["y"].any()
    assert not one.in_runtime(ALL)["y"].any()
