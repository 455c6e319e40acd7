"""How arrays become calls."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from tests.worker import networks
from worker.engine.feeds import DataMismatch, match_arrays
from worker.engine.graph import TensorFace, inputs_of
from worker.engine.inspection.specs import input_specs
from worker.engine.model_file import ModelFile
from worker.engine.random_input import integer_bounds, random_feeds, working_shapes
from worker.engine.sessions import open_session, run_session
from worker.engine.stored_arrays import ArrayStore

ROWS = TensorFace("x", "float32", ("N", 3))
STATE = TensorFace("state", "float32", (2, "N", 4))
NUMBERS = np.arange(21, dtype=np.float32).reshape(7, 3)


def test_every_sample_comes_once_in_order() -> None:
    calls = list(match_arrays([ROWS], {"x": NUMBERS}, "data").calls(3))
    assert [len(call.samples) for call in calls] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([call.feed["x"] for call in calls]), NUMBERS)


def test_a_fixed_batch_is_kept_and_the_last_call_padded() -> None:
    calls = list(match_arrays([TensorFace("x", "float32", (4, 3))], {"x": NUMBERS}, "data").calls(1))
    assert [call.feed["x"].shape for call in calls] == [(4, 3), (4, 3)]
    assert list(calls[1].samples) == [4, 5, 6]
    np.testing.assert_array_equal(calls[1].feed["x"][3], NUMBERS[6])


def test_one_axis_more_feeds_one_call_a_sample() -> None:
    state = np.arange(7 * 8, dtype=np.float32).reshape(7, 2, 1, 4)
    calls = list(match_arrays([ROWS, STATE], {"x": NUMBERS, "state": state}, "data").calls(32))
    assert len(calls) == 7
    assert calls[3].feed["x"].shape == (1, 3)
    np.testing.assert_array_equal(calls[3].feed["state"], state[3])


def test_scalars_are_fed_as_scalars() -> None:
    feeds = match_arrays([TensorFace("flag", "bool", ())], {"flag": np.array([True, False])}, "data")
    assert [call.feed["flag"].shape for call in feeds.calls(8)] == [(), ()]


@pytest.mark.parametrize(
    ("given", "wanted"), [("int32", "int64"), ("float64", "float32"), ("uint8", "float32")], ids=str
)
def test_casts_that_lose_nothing_are_made_and_said(given: str, wanted: str) -> None:
    feeds = match_arrays([TensorFace("x", wanted, ("N", 3))], {"x": NUMBERS.astype(given)}, "data")
    assert next(feeds.calls(1)).feed["x"].dtype == wanted
    assert given in feeds.warnings[0]


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (NUMBERS.astype(np.int64), "int64"),
        (NUMBERS.astype(bool), "bool"),
        (NUMBERS[:, :2], "[7, 2]"),
        (NUMBERS[:, 0], "[7]"),
    ],
    ids=["int64", "bool", "wrong-axis", "wrong-rank"],
)
def test_what_does_not_fit_is_refused_with_its_numbers(array: np.ndarray, named: str) -> None:
    with pytest.raises(DataMismatch) as caught:
        match_arrays([ROWS], {"x": array}, "the data")
    assert named in caught.value.detail
    assert "float32 ['N', 3]" in caught.value.detail


def test_a_missing_input_is_named() -> None:
    with pytest.raises(DataMismatch, match="`x`"):
        match_arrays([ROWS], {"y": NUMBERS}, "the data")


def test_another_process_makes_the_same_calls(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", NUMBERS)
    mapped = np.asarray(np.load(tmp_path / "x.npy", mmap_mode="r"))
    feeds = match_arrays([ROWS, STATE], {"x": mapped[2:], "state": np.ones((5, 2, 1, 4), np.float32)}, "data")
    described = feeds.describe(ArrayStore(tmp_path / "store"))
    assert described.arrays["x"].path == str((tmp_path / "x.npy").resolve())
    for here, there in zip(feeds.calls(1), described.open().calls(1), strict=True):
        for name, array in here.feed.items():
            np.testing.assert_array_equal(array, there.feed[name])


@pytest.mark.parametrize("sizes", [[0, 3], [-1, 3], ["N", 3], [None, 0], None], ids=str)
def test_a_declared_axis_is_what_the_api_and_the_runtime_say(sizes: list[int | str | None] | None) -> None:
    floats = TensorProto.FLOAT
    node = helper.make_node("Relu", ["x"], ["y"])
    model = networks.assemble([node], {"x": (floats, sizes)}, {"y": (floats, None)})
    (face,), (spec,) = inputs_of(model), input_specs(model)
    runtime = InferenceSession(model.SerializeToString()).get_inputs()[0].shape
    assert spec.shape == (None if face.shape is None else list(face.shape))
    assert (spec.shape or []) == runtime


def test_samples_for_an_axis_without_elements_are_refused() -> None:
    empty = TensorFace("state", "float32", (0, 3))
    with pytest.raises(
        DataMismatch, match=r"float32 \[0, 3\]: the model takes no samples along the first axis of `state`"
    ) as caught:
        match_arrays([empty], {"state": NUMBERS}, "data")
    assert caught.value.remedy
    feeds = match_arrays([ROWS, empty], {"x": NUMBERS[:, None], "state": np.zeros((7, 0, 3), np.float32)}, "data")
    assert [call.feed["state"].shape for call in feeds.calls(4)] == [(0, 3)] * 7


def test_random_indices_stay_within_their_table(tmp_path: Path) -> None:
    model = ModelFile(networks.save(networks.attention_block(), tmp_path))
    structure = model.structure()
    inputs = inputs_of(structure)
    shapes = working_shapes(model, inputs, {}, batch=1, threads=1)
    feeds = random_feeds(inputs, integer_bounds(structure, inputs), shapes, 50, seed=0)
    tokens = feeds.arrays["tokens"]
    # The table has 50 rows; 300 draws leave none of the upper half out but for one chance in 2^300.
    assert 25 < tokens.max() < 50


def test_open_axes_are_tried_until_the_model_runs(tmp_path: Path) -> None:
    """The width is declared open, and only 4 fits the weight."""
    weights = {"w": np.ones((4, 2), np.float32)}
    floats = TensorProto.FLOAT
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    made = networks.assemble([node], {"x": (floats, ["N", "width"])}, {"y": (floats, ["N", 2])}, weights)
    model = ModelFile(networks.save(made, tmp_path))
    inputs = inputs_of(model.structure())
    shapes = working_shapes(model, inputs, {}, batch=3, threads=1)
    assert shapes == {"x": (3, 4)}
    feed = next(random_feeds(inputs, {}, shapes, 1, 0).calls(1)).feed
    assert run_session(open_session(model.path, 1), feed)[0].shape == (3, 2)


@pytest.mark.parametrize(
    ("text", "wanted", "shapes"),
    [
        (
            "g (float[N,H,W,3] image) => (float[N,H,W,3] y) { y = Relu(image) }",
            {},
            {"image": (5, 224, 224, 3)},
        ),
        (
            "g (float[nodes,nodes] edges, float[nodes,16] x) => (float[nodes,16] y) { y = MatMul(edges, x) }",
            {},
            {"edges": (128, 128), "x": (128, 16)},
        ),
        (
            "g (float[length] places, float[batch,length] ids) => (float[batch,length] y) { y = Add(ids, places) }",
            {},
            {"places": (128,), "ids": (5, 128)},
        ),
        (
            "g (float[2,N,4] state, float[N,4] x) => (float[2,N,4] y) { y = Add(state, x) }",
            {},
            {"state": (2, 5, 4), "x": (5, 4)},
        ),
        (
            "g (float[batch,length] mask, float[batch,length] ids) => (float[batch,length] y) { y = Add(ids, mask) }",
            {"ids": [2, 7]},
            {"mask": (2, 7), "ids": (2, 7)},
        ),
    ],
    ids=["channels-last", "between-nodes", "length-alone", "state", "given-for-one"],
)
def test_axes_of_one_name_are_of_one_size(
    text: str, wanted: dict[str, list[int]], shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    model = ModelFile(networks.save(networks.parse(text), tmp_path))
    assert working_shapes(model, inputs_of(model.structure()), wanted, batch=5, threads=1) == shapes


@pytest.mark.parametrize(
    ("axes", "shape"),
    [([None, None, None, 3], (1, 224, 224, 3)), ([None, None, None, 224], (1, 3, 224, 224))],
    ids=["channels-last", "channels-first"],
)
def test_an_image_has_its_channels_where_a_small_number_says_so(
    axes: list[int | str | None], shape: tuple[int, ...], tmp_path: Path
) -> None:
    floats = TensorProto.FLOAT
    made = networks.assemble([helper.make_node("Relu", ["x"], ["y"])], {"x": (floats, axes)}, {"y": (floats, axes)})
    model = ModelFile(networks.save(made, tmp_path))
    assert working_shapes(model, inputs_of(model.structure()), {}, batch=1, threads=1) == {"x": shape}
