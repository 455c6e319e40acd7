"""Ranges from data: exact where they should be, the same whatever the order, and in memory that does not grow."""

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.calibration import Calibration, Settings, calibrate
from worker.engine.calibration.thresholds import Method
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")
FLOAT = TensorProto.FLOAT
SCALED = """network (float[N,8] x) => (float[N,8] y) {
    two = Constant<value = float {2}>()
    double = Mul(x, two)
    y = Relu(double)
}"""
# A megabyte a sample at `wide`, of which nothing but the sum is handed out by the model itself.
WIDE = """network (float[N,1] x) => (float[N,1] y) {
    shape = Constant<value_ints = [1, 262144]>()
    wide = Expand(x, shape)
    axis = Constant<value_ints = [1]>()
    y = ReduceSum<keepdims = 1>(wide, axis)
}"""
# Rows of as many elements as lie above 0: another number in every call.
KEPT = """network (float[N,20000] x) => (float[M] y) {
    zero = Constant<value = float {0}>()
    positive = Greater(x, zero)
    kept = Compress(x, positive)
    y = Mul(kept, kept)
}"""


def _calibrated(
    model: ModelProto, context: PassContext, settings: Settings | None = None, **tensors: int
) -> Calibration:
    file = ModelFile(networks.save(model, context.scratch / "model"))
    return calibrate(file, settings or Settings(), context, lambda _share: None, tensors)


def test_extremes_are_exact_over_all_samples(context: SamplesContext) -> None:
    values = networks.normal(50, 8)
    found = _calibrated(networks.parse(SCALED), context(networks.parse(SCALED), x=values), x=FLOAT, double=FLOAT, y=1)
    assert {name: (one.low, one.high) for name, one in found.ranges.items()} == {
        "x": (float(values.min()), float(values.max())),
        "double": (2 * float(values.min()), 2 * float(values.max())),
        "y": (0.0, 2 * float(values.max())),
    }
    assert (found.sample_count, found.not_finite) == (50, {})


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_samples_does_not_matter(context: SamplesContext, method: Method) -> None:
    model = networks.parse(KEPT)
    values = networks.normal(12, 20_000) * np.geomspace(0.01, 100, 12, dtype=np.float32)[:, None]
    values[5] = -1
    given = context(model, x=values)
    shuffled = replace(
        given, feeds=replace(given.feeds, arrays={"x": values[np.random.default_rng(0).permutation(12)]})
    )
    settings = Settings(method, 99.9)
    first, second = (_calibrated(model, one, settings, x=FLOAT, kept=FLOAT, y=FLOAT) for one in (given, shuffled))
    assert first.ranges == second.ranges
    assert len(first.ranges) == 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_was_not_finite_has_no_range(context: SamplesContext, method: Method, bad: float) -> None:
    """The others of the same model have theirs: Relu turns minus infinity into 0."""
    model = networks.parse(SCALED)
    values = networks.normal(4, 8)
    values[2, 3] = bad
    found = _calibrated(model, context(model, x=values), Settings(method), x=FLOAT, double=FLOAT, y=FLOAT)
    spoilt = ["x", "double"] if bad == -np.inf else ["x", "double", "y"]
    assert list(found.not_finite) == spoilt
    assert set(found.ranges) == {"x", "double", "y"} - set(spoilt)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_not_finite_now_and_then_is_known_by_the_other_calls(context: SamplesContext, method: Method) -> None:
    model = networks.parse(SCALED)
    values = networks.normal(5, 8)
    values[4] = np.nan
    given = context(model, x=values)
    found = _calibrated(model, given, Settings(method), x=FLOAT)
    assert found.not_finite == _calibrated(model, given, Settings(method, samples=4), x=FLOAT).ranges
    never = replace(given, feeds=replace(given.feeds, arrays={"x": np.full_like(values, np.nan)}))
    assert _calibrated(model, never, Settings(method), x=FLOAT).not_finite == {"x": None}


def test_a_tensor_that_was_always_empty_has_no_range(context: SamplesContext) -> None:
    model = networks.parse(KEPT)
    found = _calibrated(model, context(model, x=-np.abs(networks.normal(3, 20_000))), kept=FLOAT, x=FLOAT)
    assert (set(found.ranges), found.not_finite) == ({"x"}, {})


def test_it_stops_after_one_call_where_no_time_is_left(context: SamplesContext) -> None:
    model = networks.parse(SCALED)
    late = replace(context(model, x=networks.normal(50, 8)), deadline=0.0)
    assert _calibrated(model, late, double=FLOAT).sample_count == 1


def test_it_leaves_time_for_what_comes_after(context: SamplesContext) -> None:
    """So many calls take longer than the third of the time that they may take."""
    model = networks.parse(SCALED)
    hurried = replace(context(model, x=networks.normal(200_000, 8)), deadline=time.monotonic() + 1.5)
    assert 1 <= _calibrated(model, hurried, Settings(samples=200_000), double=FLOAT).sample_count < 200_000
    assert hurried.haste.cut_short
    assert hurried.seconds_left() > 0


def test_samples_are_counted_and_not_calls(context: SamplesContext) -> None:
    model = networks.parse(SCALED.replace("N", "4"))
    assert _calibrated(model, context(model, x=networks.normal(50, 8)), double=FLOAT).sample_count == 50


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_samples(context: SamplesContext, method: Method) -> None:
    """A megabyte is computed for each sample; what numpy ever holds at once is a fraction of one."""
    model = networks.parse(WIDE)
    # Every eight the same, so that histograms have equally many bins.
    given = context(model, x=np.tile(networks.normal(8, 1), (32, 1)))

    def peak_bytes(samples: int) -> int:
        tracemalloc.start()
        _calibrated(model, given, Settings(method, samples=samples), wide=FLOAT)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(8)
    few, many = peak_bytes(8), peak_bytes(256)
    # Less than the tensor of one sample, and nothing of it for each of 248 more: what calls under way hand out, 16 KiB
    # each, is there sooner or later.
    assert few < 1 << 20
    assert many <= few + 65_536
