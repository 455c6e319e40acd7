"""What the runtime tells of a tensor is what numpy says of it: extremes, NaN, and elements at a stride."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.calibration.as_executed import as_executed
from worker.engine.calibration.observing import exposed_calls
from worker.engine.calibration.summaries import Summarizer, Summary, stride_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

LARGEST = np.finfo(np.float32).max
SAMPLED = 8192
# Every element as it was fed: nothing rounds.
SAME = "network (float[N] x) => (float[N] same) { same = Identity(x) }"
SAME_HALF = "network (float16[N] x) => (float16[N] same) { same = Identity(x) }"
# As many elements as are above 0.
KEPT = """network (float[N,40000] x) => (float[M] y) {
    zero = Constant<value = float {0}>()
    positive = Greater(x, zero)
    kept = Compress(x, positive)
    y = Mul(kept, kept)
}"""

# Of 32, 32, 32 and 24 channels: rectified, depthwise, a residual sum of the two, and of no whole number of blocks.
CONVOLVED = dict.fromkeys(("wide", "deep", "both", "uneven"), int(TensorProto.FLOAT))


def _convolutions(scale: float = 1.0) -> ModelProto:
    generator = np.random.default_rng(0)
    kernels = {"w": (32, 3, 3, 3), "d": (32, 1, 3, 3), "u": (24, 32, 1, 1)}
    offsets = {"wb": 32, "db": 32, "ub": 24}
    constants = {name: generator.standard_normal(shape) for name, shape in kernels.items()}
    constants |= {name: generator.standard_normal(size) + 9 * scale for name, size in offsets.items()}
    return networks.prepared(
        """network (float[N,3,20,20] x) => (float[N,24,20,20] uneven) {
            conv = Conv<pads = [1, 1, 1, 1]>(x, w, wb)
            wide = Relu(conv)
            deep = Conv<pads = [1, 1, 1, 1], group = 32>(wide, d, db)
            both = Add(deep, wide)
            uneven = Conv(both, u, ub)
        }""",
        **{name: value.astype(np.float32) for name, value in constants.items()},
    )


def _exposed(model: ModelProto, context: PassContext, values: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of `CONVOLVED` as the runtime hands them out."""
    file = ModelFile(networks.save(model, context.scratch / "plain"))
    given = replace(context, feeds=replace(context.feeds, arrays={"x": values}, fixed_batch=len(values)))
    return next(exposed_calls(file, CONVOLVED, given, np.arange(len(values)), "exposed"))


def _summarizer(model: ModelProto, context: PassContext, sampled: int = SAMPLED, **tensors: int) -> Summarizer:
    file = ModelFile(networks.save(model, context.scratch / "model"))
    return Summarizer(file, tensors, context, sampled, context.threads, thorough=True)


def _assert_tells(summary: Summary, array: np.ndarray) -> None:
    flat = array.reshape(-1).astype(np.float32)
    assert (summary.low, summary.high, summary.has_nan) == (float(flat.min()), float(flat.max()), False)
    np.testing.assert_array_equal(summary.sample, flat[:: stride_of(flat.size, SAMPLED)])


@pytest.mark.parametrize("size", [1, 2, 31, SAMPLED, SAMPLED + 1, 100_000, 1_000_003])
@pytest.mark.parametrize(
    ("text", "kind"), [(SAME, TensorProto.FLOAT), (SAME_HALF, TensorProto.FLOAT16)], ids=["float32", "float16"]
)
def test_a_tensor_is_told_as_numpy_sees_it(context: SamplesContext, size: int, text: str, kind: int) -> None:
    model = networks.parse(text)
    values = networks.normal(1, size).astype(np.float16 if kind == TensorProto.FLOAT16 else np.float32)
    given = context(model, x=values)
    found = _summarizer(model, given, x=kind, same=kind).summaries({"x": values[0]})
    for name in ("x", "same"):
        _assert_tells(found[name], values)
        assert len(found[name].sample) <= SAMPLED


def test_every_tensor_is_told_by_its_own_name(context: SamplesContext) -> None:
    """One summary must not be taken for another, whatever the shapes: a scalar, rows, and one that is an output."""
    model = networks.parse(
        """network (float[N,40000] x) => (float s, float[N,100] few) {
            s = ReduceMax<keepdims = 0>(x)
            a = Constant<value_ints = [0]>()
            b = Constant<value_ints = [100]>()
            axis = Constant<value_ints = [1]>()
            few = Slice(x, a, b, axis)
        }"""
    )
    values = networks.normal(1, 40_000)
    found = _summarizer(model, context(model, x=values), few=1, s=1, x=1).summaries({"x": values})
    assert list(found) == ["few", "s", "x"]
    _assert_tells(found["few"], values[:, :100])
    _assert_tells(found["s"], values.max())
    _assert_tells(found["x"], values)


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 100_003])
def test_nan_is_told_wherever_it_lies(context: SamplesContext, size: int) -> None:
    """The runtime's own ReduceMin and ReduceMax lose most of these."""
    model = networks.parse(SAME)
    values = networks.normal(1, size)
    summarizer = _summarizer(model, context(model, x=values), same=TensorProto.FLOAT)
    for place in {0, 1 % size, size // 3, size // 2, size - 1}:
        spoilt = values[0].copy()
        spoilt[place] = np.nan
        assert summarizer.summaries({"x": spoilt})["same"].has_nan
    assert not summarizer.summaries({"x": values[0]})["same"].has_nan


@pytest.mark.parametrize(
    ("extremes", "has_nan"),
    [
        ((-LARGEST, LARGEST), False),
        ((-np.inf, 1.0), False),
        ((-1.0, np.inf), False),
        ((-np.inf, np.inf), False),
        ((np.nan, np.inf), True),
    ],
    ids=["sums-that-overflow", "minus-infinity", "infinity", "both", "nan-beside-infinity"],
)
def test_what_is_large_is_no_nan(context: SamplesContext, extremes: tuple[float, float], has_nan: bool) -> None:
    model = networks.parse(SAME)
    values = np.tile(np.array(extremes, np.float32), (1, 5000))
    found = _summarizer(model, context(model, x=values), same=TensorProto.FLOAT).summaries({"x": values[0]})["same"]
    assert found.has_nan is has_nan
    if not has_nan:
        assert (found.low, found.high) == extremes


def test_sizes_that_depend_on_the_data_are_told_call_by_call(context: SamplesContext) -> None:
    """Some calls keep nothing, some a few elements and some more than a sample holds."""
    model = networks.parse(KEPT)
    values = networks.normal(6, 40_000)
    values[1] = -1
    values[3, 5:] = -1
    values[4] = 2
    summarizer = _summarizer(model, context(model, x=values), kept=1, y=1)
    for row in values:
        found = summarizer.summaries({"x": row[None]})
        kept = row[row > 0]
        if len(kept):
            _assert_tells(found["kept"], kept)
            _assert_tells(found["y"], kept * kept)
        else:
            assert found["kept"].low > found["kept"].high
            assert not found["kept"].has_nan
            assert not len(found["kept"].sample)


@pytest.mark.parametrize("flag", [True, False])
def test_what_a_branch_made_is_told(context: SamplesContext, flag: bool) -> None:
    model = networks.with_branches()
    values = networks.normal(1, 4)
    given = context(model, x=values, flag=np.array([flag]))
    feed = next(given.feeds.calls(1)).feed
    _assert_tells(_summarizer(model, given, y=1).summaries(feed)["y"], values * 2 if flag else values + 2)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_extremes_need_no_operator_that_an_old_file_lacks(context: SamplesContext, opset: int) -> None:
    model = networks.parse(SAME, opset)
    values = networks.normal(1, 300)
    given = replace(context(model, x=values), threads=2)
    found = _summarizer(model, given, sampled=0, same=1).summaries({"x": values[0]})["same"]
    assert (found.low, found.high, len(found.sample)) == (float(values.min()), float(values.max()), 0)


@pytest.mark.parametrize("scale", [1.0, -1.0], ids=["mostly-above-zero", "mostly-below"])
@pytest.mark.parametrize("batch", [1, 3])
def test_tensors_in_blocks_of_channels_are_told_as_the_others(
    context: SamplesContext, scale: float, batch: int
) -> None:
    """Exact extremes; and of what fits into a sample every element once, in whatever order."""
    model = _convolutions(scale)
    values = networks.normal(batch, 3, 20, 20)
    given = context(model, x=values)
    found = _summarizer(model, given, sampled=40_000, **CONVOLVED).summaries({"x": values})
    for name, array in _exposed(model, given, values).items():
        low, high = float(array.min()), float(array.max())
        assert (found[name].low, found[name].high, found[name].has_nan) == (low, high, False)
        np.testing.assert_array_equal(np.sort(found[name].sample), np.sort(array, axis=None))


def test_a_sample_of_blocks_takes_every_channel_and_no_edge_more_often(context: SamplesContext) -> None:
    """What is sampled of a tensor of which each element tells its channel and its row."""
    model = networks.prepared(
        """network (float[N,16,64,64] x) => (float[N,16,64,64] y) { y = Conv<kernel_shape = [1, 1]>(x, w) }""",
        w=np.eye(16, dtype=np.float32)[:, :, None, None],
    )
    values = np.broadcast_to(np.arange(16)[:, None, None] * 64 + np.arange(64)[:, None], (1, 16, 64, 64))
    values = values.astype(np.float32)
    sample = _summarizer(model, context(model, x=values), 4096, y=1).summaries({"x": values})["y"].sample
    channels, rows = np.bincount((sample // 64).astype(int)), np.bincount((sample % 64).astype(int), minlength=64)
    assert 2048 <= len(sample) <= 4096
    assert channels.max() - channels.min() <= 2
    # 4096 positions at a prime stride of 17: three or four of each row, with all of their channels.
    assert (rows.min(), rows.max()) in {(48, 64), (60, 61), (60, 62)}


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 19, 19), (1, 7, 13)])
def test_nan_is_told_in_blocks_too(context: SamplesContext, place: tuple[int, int, int]) -> None:
    model = _convolutions()
    values = networks.normal(1, 3, 20, 20)
    given = context(model, x=values)
    summarizer = _summarizer(model, given, **CONVOLVED)
    values[0][place] = np.nan
    found = summarizer.summaries({"x": values})
    for name, array in _exposed(model, given, values).items():
        assert found[name].has_nan == bool(np.isnan(array).any())
    assert found["wide"].has_nan


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinity_is_told_in_blocks_too(context: SamplesContext, bad: float) -> None:
    model = networks.prepared(
        """network (float[N,16,5,5] x) => (float[N,16,5,5] y) {
            w = Constant<value = float[16,1,1,1] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}>()
            y = Conv<group = 16, kernel_shape = [1, 1]>(x, w)
        }"""
    )
    values = networks.normal(1, 16, 5, 5)
    values[0, 3, 2, 2] = bad
    found = _summarizer(model, context(model, x=values), y=1).summaries({"x": values})["y"]
    assert not found.has_nan
    assert bad in (found.low, found.high)


def test_what_no_convolution_was_given_has_no_extremes(context: SamplesContext) -> None:
    model = _convolutions()
    values = networks.normal(1, 3, 20, 20)
    found = _summarizer(model, context(model, x=values), **CONVOLVED).summaries({"x": values[:0]})
    for summary in found.values():
        assert (summary.low > summary.high, summary.has_nan, len(summary.sample)) == (True, False, 0)


def test_only_whole_blocks_are_read_as_blocks(context: SamplesContext) -> None:
    """The last block of 24 channels may hold 8 that are nobody's. Some processors have no blocks at all."""
    model = _convolutions()
    file = ModelFile(networks.save(model, (given := context(model, x=networks.normal(1, 3, 20, 20))).scratch / "model"))
    executed = as_executed(file, CONVOLVED, given)
    assert set(executed.blocked) in (set(), {"wide", "deep", "both"})
    assert executed.rectified == {"wide"}
    assert "uneven" not in executed.blocked
