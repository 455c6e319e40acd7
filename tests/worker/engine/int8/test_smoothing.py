"""SmoothQuant: the float model computes what it did; outlier channels cost less in 8 bits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.extent import Extent
from worker.engine.graph_file import read_graph
from worker.engine.int8.smoothing import joints_of, smooth, smoothing_factors
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session

WIDTH, OUTLIER = 32, 40.0


def _normalized_product(outlier: float) -> onnx.ModelProto:
    """`x` (N, 6, 32) -> `y` (N, 6, 8): LayerNorm whose scale blows up one channel, then a product."""
    generator = np.random.default_rng(0)
    scale = np.ones(WIDTH, np.float32)
    scale[3] = outlier
    weights = {
        "scale": scale,
        "bias": np.zeros(WIDTH, np.float32),
        "weight": generator.standard_normal((WIDTH, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["normal"], "norm", axis=-1),
        helper.make_node("MatMul", ["normal", "weight"], ["y"], "product"),
    ]
    floats = TensorProto.FLOAT
    return networks.assemble(nodes, {"x": (floats, ["N", 6, WIDTH])}, {"y": (floats, ["N", 6, 8])}, weights)


def _samples() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((16, 6, WIDTH)).astype(np.float32)


def test_the_formula_of_the_paper() -> None:
    factors = smoothing_factors(np.array([16.0, 4.0, 0.0]), np.array([1.0, 1.0, 1.0]), 0.5)
    np.testing.assert_allclose(factors, [4.0, 2.0, 1.0])


def test_a_smoothed_model_answers_as_before(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    model = _normalized_product(OUTLIER)
    file = saved(model)
    made, strengths = smooth(file, context(model, x=_samples()), samples=16)
    assert set(strengths) == {"norm"}
    feed = {"x": _samples()}
    before, after = (run_session(open_session(one.path, 1), feed)[0] for one in (file, made))
    # Factors are no powers of two: one rounding more in float32 on each side of the product.
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_a_model_without_such_norms_is_returned_as_it_is(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    model = networks.perceptron()
    file = saved(model)
    assert smooth(file, context(model, x=np.ones((4, 8), np.float32)), samples=4) == (file, {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_has_no_say(
    bad: float, saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    model = _normalized_product(OUTLIER)
    samples = _samples()
    samples[3] = bad
    _, strengths = smooth(saved(model), context(model, x=samples), samples=16)
    assert set(strengths) == {"norm"}


@pytest.mark.parametrize("spoiled", ["every sample", "a weight", "no row"])
def test_where_nothing_tells_a_strength_the_model_is_returned_as_it_is(
    spoiled: str, saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    model = _normalized_product(OUTLIER)
    samples = _samples()
    if spoiled == "every sample":
        samples[:] = np.nan
    elif spoiled == "a weight":
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
        broken = numpy_helper.to_array(weight).copy()
        broken[5, 2] = np.nan
        weight.CopyFrom(numpy_helper.from_array(broken, "weight"))
    else:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[1].dim_param = "L"
        samples = samples[:, :0]
    file = saved(model)
    assert smooth(file, context(model, x=samples), samples=16) == (file, {})


@pytest.mark.parametrize("spoiled", ["another reader", "an output"])
def test_a_norm_that_others_read_is_left_alone(spoiled: str, saved: Callable[..., ModelFile]) -> None:
    model = _normalized_product(OUTLIER)
    if spoiled == "another reader":
        model.graph.node.append(helper.make_node("Relu", ["normal"], ["z"], "relu"))
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 6, WIDTH]))
    else:
        model.graph.output.append(helper.make_tensor_value_info("normal", TensorProto.FLOAT, ["N", 6, WIDTH]))
    assert joints_of(read_graph(saved(model))) == []


@pytest.mark.parametrize(("extent", "read"), [(Extent(seconds=0.0), 1), (Extent(3), 3), (Extent(seconds=600.0), 16)])
def test_what_was_read_in_time_counts_as_if_no_more_had_been_asked_for(
    extent: Extent, read: int, saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    """A replay asks for as many samples as were read, and has to choose and write the same."""
    model = _normalized_product(OUTLIER)
    file, given = saved(model), context(model, x=_samples())
    made, strengths = smooth(file, given, 16, extent)
    assert extent.samples == read
    (given.scratch / "again").mkdir()
    asked, wanted = smooth(file, replace(given, scratch=given.scratch / "again"), read)
    assert strengths == wanted
    assert made.path.read_bytes() == asked.path.read_bytes()
