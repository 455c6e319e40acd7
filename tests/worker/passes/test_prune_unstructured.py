"""Zeros among weights: how many, where, and that nothing else of the file moves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from app.recipes.pruning import PruneUnstructured
from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.evaluation.file_size import compressed_size_bytes
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of
from worker.engine.pass_contract import PassContext, PassResult
from worker.passes.prune_unstructured import apply

IMAGES = {"image": normal(2, 3, 16, 16)}
ROWS = {"x": normal(2, 8)}
CONVNET_WEIGHTS = {"stem.weight": 216, "depthwise.weight": 72, "pointwise.weight": 64, "head.weight": 80}


def _apply(
    model: ModelProto,
    folder: Path,
    arrays: dict[str, np.ndarray],
    data_file: str | None = None,
    **arguments: Any,
) -> PassResult:
    file = ModelFile(networks.save(model, folder / "model", data_file))
    (folder / "scratch").mkdir()
    feeds = match_arrays(inputs_of(file.structure()), arrays, "the data")
    config = PruneUnstructured.model_validate({"pass": "prune_unstructured", **arguments})
    return apply(file, config, PassContext(folder / "scratch", feeds, seed=0, threads=1))


def _constants(model: ModelProto) -> dict[str, np.ndarray]:
    return {name: numpy_helper.to_array(tensor) for name, tensor in constants_of(model.graph)}


def _zeros(result: PassResult) -> dict[str, int]:
    found = _constants(result.model.load())
    return {name: int((found[name] == 0).sum()) for name in found if found[name].ndim > 1}


def _scaled_convnet() -> ModelProto:
    """The head a hundred times larger than the convolutions: one theta for all would not touch it."""
    model = networks.convnet()
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * 100, "head.weight"))
    return model


@dataclass
class Counted:
    id: str
    arguments: dict[str, Any]
    zeros: dict[str, int]


COUNTS = [
    # No two magnitudes are the same here, so a share of n is a count.
    Counted(
        "half-of-every-layer",
        {"sparsity": 0.5},
        {"stem.weight": 108, "depthwise.weight": 36, "pointwise.weight": 32, "head.weight": 40},
    ),
    Counted(
        "a-share-rounded-to-the-nearest",
        {"sparsity": 0.9},
        {"stem.weight": 194, "depthwise.weight": 65, "pointwise.weight": 58, "head.weight": 72},
    ),
    Counted(
        "a-percentile-of-every-layer",
        {"percentile": 25},
        {"stem.weight": 54, "depthwise.weight": 18, "pointwise.weight": 16, "head.weight": 20},
    ),
    # Of an axis of 3 the last group is shorter: 2 of 3 stay; of an axis of one, as of depthwise filters, all do.
    Counted(
        "two-of-four",
        {"pattern": "2:4"},
        {"stem.weight": 72, "depthwise.weight": 0, "pointwise.weight": 32, "head.weight": 40},
    ),
    Counted(
        "one-operator",
        {"sparsity": 0.5, "operators": ["Gemm"]},
        {"stem.weight": 0, "depthwise.weight": 0, "pointwise.weight": 0, "head.weight": 40},
    ),
    Counted(
        "without-the-excluded",
        {"sparsity": 0.5, "exclude": ["stem", "head"]},
        {"stem.weight": 0, "depthwise.weight": 36, "pointwise.weight": 32, "head.weight": 0},
    ),
]


@pytest.mark.parametrize("case", COUNTS, ids=lambda case: case.id)
def test_as_many_weights_are_zero_as_the_rule_says(case: Counted, tmp_path: Path) -> None:
    result = _apply(_scaled_convnet(), tmp_path, IMAGES, **case.arguments)
    assert _zeros(result) == case.zeros
    reported = {layer.weight: layer.sparsity for layer in result.layers}
    assert reported == {
        name: case.zeros[name] / size
        for name, size in CONVNET_WEIGHTS.items()
        if name not in result.manifest["left_alone"]
    }
    assert {layer.name: layer.operator for layer in result.layers}.items() <= {
        "stem": "Conv",
        "depthwise": "Conv",
        "pointwise": "Conv",
        "head": "Gemm",
    }.items()


@pytest.mark.parametrize("rule", [{"threshold": 0.3}, {"threshold": 0.3, "scope": "global"}], ids=["layer", "global"])
def test_a_threshold_takes_what_is_below_it_and_nothing_else(rule: dict[str, Any], tmp_path: Path) -> None:
    model = networks.convnet()
    result = _apply(model, tmp_path, IMAGES, **rule)
    before, after = _constants(model), _constants(result.model.load())
    for name, values in before.items():
        expected = np.where(np.abs(values) < 0.3, 0, values) if name in CONVNET_WEIGHTS else values
        np.testing.assert_array_equal(after[name], expected)
    assert set(result.manifest["theta"].values()) == {0.3}


@pytest.mark.parametrize("rule", [{"sparsity": 0.5}, {"percentile": 50}], ids=["sparsity", "percentile"])
def test_one_theta_for_all_spares_the_layers_with_large_weights(rule: dict[str, Any], tmp_path: Path) -> None:
    result = _apply(_scaled_convnet(), tmp_path, IMAGES, scope="global", **rule)
    found = _zeros(result)
    assert sum(found.values()) == sum(CONVNET_WEIGHTS.values()) // 2
    assert found["head.weight"] == 0
    assert len(set(result.manifest["theta"].values())) == 1
    assert result.manifest["sparsity"]["after"] == 0.5


def test_equal_weights_go_by_their_position_across_the_model(tmp_path: Path) -> None:
    weights = {"a": np.ones((8, 4), np.float32), "b": -np.ones((4, 2), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    floats = TensorProto.FLOAT
    model = networks.assemble(nodes, {"x": (floats, ["N", 8])}, {"y": (floats, ["N", 2])}, weights)
    result = _apply(model, tmp_path, ROWS, sparsity=0.9, scope="global")
    after = _constants(result.model.load())
    np.testing.assert_array_equal(after["a"], np.zeros((8, 4)))
    np.testing.assert_array_equal(after["b"].reshape(-1), [0, 0, 0, 0, -1, -1, -1, -1])


@pytest.mark.parametrize("data_file", [None, "weights.bin"], ids=["in-the-file", "external-data"])
def test_what_got_no_zero_stays_byte_for_byte(data_file: str | None, tmp_path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(networks.convnet())
    model.metadata_props.add(key="author", value="somebody")
    result = _apply(model, tmp_path, IMAGES, data_file, sparsity=0.5, exclude=["head"])
    before, after = ModelFile(tmp_path / "model" / "model.onnx").load(), result.model.load()
    changed = {
        old.name
        for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if old.SerializeToString() != new.SerializeToString()
    }
    assert changed == {"stem.weight", "depthwise.weight", "pointwise.weight"}
    for one in (before, after):
        del one.graph.initializer[:]
    assert before == after
    assert [file.name for file in result.model.files()] == ["model.onnx", *([data_file] if data_file else [])]
    assert result.model.size_bytes() == ModelFile(tmp_path / "model" / "model.onnx").size_bytes()


def test_the_zeros_are_what_runs(tmp_path: Path) -> None:
    model = networks.perceptron()
    result = _apply(model, tmp_path, ROWS, pattern="2:4")
    weights = _constants(result.model.load())
    hidden = np.maximum(ROWS["x"] @ weights["first.weight"] + weights["first.bias"], 0)
    session = ort.InferenceSession(result.model.path, providers=["CPUExecutionProvider"])
    answer = session.run(None, ROWS)[0]
    np.testing.assert_allclose(answer, hidden @ weights["second.weight"], rtol=1e-4, atol=1e-5)
    groups = np.concatenate([weights[name].T.reshape(-1, 4) for name in ("first.weight", "second.weight")])
    assert ((groups != 0).sum(axis=1) == 2).all()


def test_the_report_says_what_zeros_are_worth(tmp_path: Path) -> None:
    result = _apply(networks.perceptron(width=256), tmp_path, ROWS, sparsity=0.9)
    sizes = result.manifest["compressed"]
    assert sizes["before_bytes"] == compressed_size_bytes([tmp_path / "model" / "model.onnx"])
    assert sizes["after_bytes"] == compressed_size_bytes(result.model.files())
    # A tenth of the weights and where they stand: floats hardly compress, so this much is left of 12 kB.
    assert sizes["after_bytes"] < 0.4 * sizes["before_bytes"]
    words = " ".join(result.notes)
    assert "zstd, level 3" in words
    assert "runs no faster" in words
    assert "2,765 of 3,072 weights in 2 tensors are zero (90.0%); before, 0 were (0.0%)." in result.notes


def test_pruning_again_finds_nothing_left_to_do(tmp_path: Path) -> None:
    first = _apply(networks.perceptron(), tmp_path, ROWS, sparsity=0.5)
    (tmp_path / "again").mkdir()
    again = _apply(first.model.load(), tmp_path / "again", ROWS, sparsity=0.5)
    assert not again.modified
    assert [layer.sparsity for layer in again.layers] == [0.5, 0.5]
    assert again.notes[-1] == "No weight was set to zero that is not so already."


def test_what_stays_and_why_is_said(tmp_path: Path) -> None:
    result = _apply(networks.convnet(), tmp_path, IMAGES, sparsity=0.5, exclude=["stem", "no such node"])
    assert "Left as they were: 1 tensors (excluded by the recipe)." in result.notes
    assert any("no such node" in note for note in result.notes)
    assert result.manifest["left_alone"] == {"stem.weight": "excluded by the recipe"}


@dataclass
class Untouched:
    id: str
    model: ModelProto
    words: str


@pytest.mark.parametrize(
    "case",
    [
        Untouched("quantized", networks.quantized_product(), "in 8 bits already"),
        Untouched("branches", networks.with_branches(), "No float32 weight of a product"),
    ],
    ids=lambda case: case.id,
)
def test_a_model_without_weights_to_prune_is_left_alone(case: Untouched, tmp_path: Path) -> None:
    arrays = {"x": normal(2, 8)} if case.id == "quantized" else {"x": normal(2, 4), "flag": np.array([True, True])}
    result = _apply(case.model, tmp_path, arrays, sparsity=0.5)
    assert not result.modified
    assert case.words in result.notes[-1]


def test_weights_of_functions_are_pruned_where_the_file_holds_them(tmp_path: Path) -> None:
    result = _apply(networks.with_function(), tmp_path, ROWS, sparsity=0.5)
    assert _zeros(result) == {"w": 16}
    assert [function.name for function in result.model.load().functions] == ["Layer", "Product"]
