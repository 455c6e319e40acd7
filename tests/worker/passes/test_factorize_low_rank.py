"""Weights as products of smaller ones: what is written, what is kept of the outputs, what stays and what is said."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.low_rank import settling
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.random_input import random_feeds
from worker.passes.registry import load_pass

WIDTH, SIDE = 48, 8


def _low(outputs: int, inputs: int, rank: int, seed: int, noise: float = 0.02) -> np.ndarray:
    """`(inputs, outputs)` of about this rank, as weights of trained models are."""
    made = normal(inputs, rank, seed=seed) @ normal(rank, outputs, seed=seed + 1) / np.sqrt(inputs * rank)
    return (made + noise * normal(inputs, outputs, seed=seed + 2) / np.sqrt(inputs)).astype(np.float32)


def _network(width: int = WIDTH) -> onnx.ModelProto:
    """`x` (N, width), `image` (N, 8, 8, 8) -> `y` (N, 10): a MatMul with bias, a Gemm, a convolution of low rank."""
    filters = _low(16, 72, 4, 20).T.reshape(16, 8, 3, 3)
    weights = {
        "first.weight": _low(width, width, 6, 0),
        "first.bias": normal(width, seed=3),
        "second.weight": _low(width, width, 6, 5).T.copy(),
        "second.bias": normal(width, seed=8),
        "conv.weight": np.ascontiguousarray(filters),
        "conv.bias": normal(16, seed=9),
        "head.weight": normal(width, 10, seed=10) / np.float32(np.sqrt(width)),
        "other.weight": normal(16, 10, seed=11) / np.float32(4),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["p"], "first"),
        helper.make_node("Add", ["p", "first.bias"], ["h"], "bias"),
        helper.make_node("Relu", ["h"], ["a"], "relu"),
        helper.make_node("Gemm", ["a", "second.weight", "second.bias"], ["b"], "second", transB=1),
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["m"], "mean"),
        helper.make_node("Flatten", ["m"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "other.weight"], ["o"], "other"),
        helper.make_node("MatMul", ["b", "head.weight"], ["s"], "head"),
        helper.make_node("Add", ["s", "o"], ["y"], "sum"),
    ]
    floats = TensorProto.FLOAT
    inputs: dict[str, tuple[int, list[int | str | None] | None]] = {
        "x": (floats, ["N", width]),
        "image": (floats, ["N", 8, SIDE, SIDE]),
    }
    return networks.assemble(nodes, inputs, {"y": (floats, ["N", 10])}, weights)


def _arrays(count: int = 200) -> dict[str, np.ndarray]:
    return {"x": normal(count, WIDTH, seed=30), "image": normal(count, 8, SIDE, SIDE, seed=31) + 0.5}


def _apply(model: onnx.ModelProto, folder: Path, feeds: Feeds | None = None, **arguments: Any) -> PassResult:
    folder.mkdir(exist_ok=True)
    file = ModelFile(networks.save(model, folder / "model"))
    (folder / "scratch").mkdir()
    given = feeds or match_arrays(inputs_of(file.structure()), _arrays(), "the data")
    asked = {"deadline": float("inf"), "max_drop": None} | arguments
    context = PassContext(
        folder / "scratch", given, seed=0, threads=1, deadline=asked.pop("deadline"), max_drop=asked.pop("max_drop")
    )
    config = CATALOGUE["factorize_low_rank"].config.model_validate({"pass": "factorize_low_rank", **asked})
    return load_pass("factorize_low_rank")(file, config, context)


def _run(model: onnx.ModelProto | ModelFile, arrays: dict[str, np.ndarray]) -> np.ndarray:
    content = model.path if isinstance(model, ModelFile) else model.SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, arrays)[0], np.float64)


def _sqnr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - actual) ** 2)))


def test_a_smaller_file_keeps_what_the_floor_asks_for(tmp_path: Path) -> None:
    model = _network()
    result = _apply(model, tmp_path, objective="size", fidelity_floor_db=20)
    assert result.modified
    fresh = {name: array[150:] for name, array in _arrays().items()}
    assert _sqnr_db(_run(model, fresh), _run(result.model, fresh)) >= 20
    assert result.model.size_bytes() < 0.6 * ModelFile(tmp_path / "model" / "model.onnx").size_bytes()
    factored = {layer.name: layer.factors for layer in result.layers if layer.factors is not None}
    assert {"first", "second", "conv"} <= factored.keys()
    held = {tensor.name: list(tensor.dims) for tensor in result.model.structure().graph.initializer}
    for layer in result.layers:
        if layer.factors is not None:
            made = [held[name] for name in held if name.startswith(f"{layer.weight}/")]
            assert sum(int(np.prod(shape)) for shape in made) == layer.factors.parameters_after
            assert layer.factors.parameters_after < 0.7 * layer.factors.parameters_before
            assert layer.weight not in held
            assert 0 < layer.factors.energy <= 1
            assert layer.sqnr_db is not None
            assert layer.sqnr_db > 0
        else:
            assert layer.reason


def test_all_else_of_the_file_stays_as_it_was(tmp_path: Path) -> None:
    model = _network()
    result = _apply(model, tmp_path, objective="size", energy=0.99, exclude=["second"], fidelity_floor_db=5)
    before = {tensor.name: tensor for tensor in model.graph.initializer}
    after = {tensor.name: tensor for tensor in result.model.load().graph.initializer}
    kept = before.keys() & after.keys()
    assert {"second.weight", "second.bias", "first.bias", "conv.bias", "head.weight"} <= kept
    for name in kept:
        np.testing.assert_array_equal(numpy_helper.to_array(before[name]), numpy_helper.to_array(after[name]))
    nodes = {node.name: node for node in result.model.structure().graph.node}
    assert {"relu", "second", "mean", "flatten", "sum"} <= nodes.keys()
    assert nodes["first/low_rank_2"].output[0] == "p"
    assert any("excluded by the recipe" in note for note in result.notes)


@pytest.mark.parametrize(("energy", "ranks"), [(0.8, (1, 6)), (0.995, (5, 9))], ids=["little", "nearly-all"])
def test_energy_chooses_the_least_rank_that_keeps_it(energy: float, ranks: tuple[int, int], tmp_path: Path) -> None:
    """The weights are of rank 6 but for a noise of a few thousandths of their power."""
    result = _apply(_network(), tmp_path, objective="size", energy=energy, fidelity_floor_db=-100)
    found = {layer.name: layer.factors for layer in result.layers}
    for name in ("first", "second"):
        factors = found[name]
        assert factors is not None
        assert factors.energy >= energy
        assert ranks[0] <= factors.ranks[0] <= ranks[1]


def test_ratio_bounds_the_weights_of_every_place(tmp_path: Path) -> None:
    result = _apply(_network(), tmp_path, objective="size", ratio=0.3, fidelity_floor_db=-100)
    factored = [layer.factors for layer in result.layers if layer.factors is not None]
    assert len(factored) >= 3
    assert all(one.parameters_after <= 0.3 * one.parameters_before for one in factored)


def test_a_rule_gives_way_to_the_floor(tmp_path: Path) -> None:
    """What costs most fidelity stays whole, though `ratio` asks for it."""
    model = _network()
    result = _apply(model, tmp_path, objective="size", ratio=0.25, fidelity_floor_db=20)
    fresh = {name: array[150:] for name, array in _arrays().items()}
    assert result.modified
    assert any(layer.factors is None for layer in result.layers)
    assert _sqnr_db(_run(model, fresh), _run(result.model, fresh)) >= 20


def test_a_contract_is_held_where_the_outputs_score_classes(tmp_path: Path) -> None:
    model = _network()
    result = _apply(model, tmp_path, objective="size", fidelity_floor_db=0, max_drop=0.02)
    arrays = {name: array[150:] for name, array in _arrays().items()}
    left, right = _run(model, arrays).argmax(axis=1), _run(result.model, arrays).argmax(axis=1)
    # Three changes for a drop: 6 % of the samples that were held out.
    assert np.mean(left == right) >= 0.94


def test_where_no_choice_keeps_the_floor_nothing_changes(tmp_path: Path) -> None:
    model = networks.perceptron(width=64)
    feeds = match_arrays(inputs_of(model), {"x": normal(64, 8)}, "the data")
    result = _apply(model, tmp_path, feeds, objective="size", fidelity_floor_db=60)
    assert not result.modified
    assert any("keeps 60 dB" in note for note in result.notes)
    assert result.model.path == tmp_path / "model" / "model.onnx"


@pytest.mark.parametrize("rule", [{"energy": 0.999999}, {"ratio": 0.001}], ids=["energy", "ratio"])
def test_a_rule_that_no_rank_answers_is_said_to_be_one(rule: dict[str, float], tmp_path: Path) -> None:
    result = _apply(_network(), tmp_path, objective="size", operators=["MatMul"], exclude=["other"], **rule)
    assert not result.modified
    assert any("`energy` or `ratio`" in note for note in result.notes)


def test_a_manifest_gives_the_same_bytes_again(tmp_path: Path) -> None:
    first = _apply(_network(), tmp_path / "first", objective="size")
    replay = dict(first.manifest["replay"])
    assert replay["given"]
    replay.pop("pass")
    second = _apply(_network(), tmp_path / "second", **replay)
    assert second.model.sha256() == first.model.sha256()


def test_what_nothing_was_found_for_is_replayed_as_that(tmp_path: Path) -> None:
    model = networks.perceptron(width=64)
    feeds = match_arrays(inputs_of(model), {"x": normal(64, 8)}, "the data")
    replay = dict(_apply(model, tmp_path / "first", feeds, objective="size", fidelity_floor_db=60).manifest["replay"])
    replay.pop("pass")
    assert not _apply(model, tmp_path / "second", feeds, **replay).modified


def test_factors_that_cannot_be_are_named(tmp_path: Path) -> None:
    given = [
        {"node": "first", "form": "matrix", "ranks": [6]},
        {"node": "second", "form": "spatial", "ranks": [6]},
        {"node": "conv", "form": "channels", "ranks": [400]},
        {"node": "nobody", "form": "matrix", "ranks": [6]},
    ]
    result = _apply(_network(), tmp_path, given=given)
    assert [layer.name for layer in result.layers if layer.factors is not None] == ["first"]
    assert any("conv, nobody, second" in note for note in result.notes)
    assert any(note.startswith("Left whole") and "the recipe gives it no ranks" in note for note in result.notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30], ids=["nan", "infinity", "beyond-float32"])
def test_a_node_that_no_number_reaches_stays_whole(value: float, tmp_path: Path) -> None:
    model, arrays = _network(), _arrays()
    arrays["image"][3, 0, 0, 0] = value
    result = _apply(model, tmp_path, match_arrays(inputs_of(model), arrays, "the data"), objective="size")
    factored = {layer.name for layer in result.layers if layer.factors is not None}
    assert "conv" not in factored
    assert {"first", "second"} <= factored
    assert any("NaN or infinity reaches it" in note for note in result.notes)


def test_weights_of_zeros_are_no_trouble(tmp_path: Path) -> None:
    model = _network()
    for tensor in model.graph.initializer:
        if tensor.name in ("first.weight", "conv.weight"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    result = _apply(model, tmp_path, objective="size")
    fresh = {name: array[150:] for name, array in _arrays().items()}
    assert np.isfinite(_run(result.model, fresh)).all()
    assert _sqnr_db(_run(model, fresh), _run(result.model, fresh)) >= 20


def test_weights_beside_the_file_and_nodes_without_names_are_found(tmp_path: Path) -> None:
    model = _network()
    for node in model.graph.node:
        node.name = ""
    file = ModelFile(networks.save(model, tmp_path / "beside", "weights.bin"))
    before = {path.name: path.read_bytes() for path in file.files()}
    (tmp_path / "scratch").mkdir()
    feeds = match_arrays(inputs_of(file.structure()), _arrays(), "the data")
    config = CATALOGUE["factorize_low_rank"].config.model_validate({"pass": "factorize_low_rank", "objective": "size"})
    result = load_pass("factorize_low_rank")(file, config, PassContext(tmp_path / "scratch", feeds, seed=0, threads=1))
    assert {path.name: path.read_bytes() for path in file.files()} == before
    assert sum(layer.factors is not None for layer in result.layers) >= 3
    fresh = {name: array[150:] for name, array in _arrays().items()}
    assert _sqnr_db(_run(file, fresh), _run(result.model, fresh)) >= 20


def test_without_data_the_plain_svd_is_taken_and_said(tmp_path: Path) -> None:
    model = _network()
    shapes = {"x": (1, WIDTH), "image": (1, 8, SIDE, SIDE)}
    result = _apply(model, tmp_path, random_feeds(inputs_of(model), {}, shapes, 8, seed=0), objective="size")
    assert result.modified
    assert any("plain SVD" in note for note in result.notes)


def test_a_model_too_small_to_be_timed_is_left_alone(tmp_path: Path) -> None:
    result = _apply(_network(), tmp_path)
    assert not result.modified
    assert any("no gain could be measured" in note or "worth while" in note for note in result.notes)


def test_without_time_to_measure_nothing_is_claimed_to_be_faster(tmp_path: Path) -> None:
    result = _apply(_network(), tmp_path, deadline=time.monotonic() + 5)
    assert not result.modified
    assert settling.NO_TIME in result.notes


def test_what_is_faster_is_kept_and_says_how_much(tmp_path: Path) -> None:
    """A product of 1024 x 1024 at rank 32 takes a sixteenth of the multiplications: no noise hides that."""
    width, rows = 1024, 64
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "wide"), helper.make_node("Relu", ["h"], ["y"], "relu")]
    floats = TensorProto.FLOAT
    shape: list[int | str | None] = ["N", rows, width]
    weights = {"w": _low(width, width, 24, 0, noise=0.001)}
    model = networks.assemble(nodes, {"x": (floats, shape)}, {"y": (floats, shape)}, weights)
    feeds = match_arrays(inputs_of(model), {"x": normal(40, rows, width, seed=1)}, "the data")
    result = _apply(model, tmp_path, feeds)
    assert result.modified, result.notes
    (layer,) = result.layers
    assert layer.factors is not None
    assert layer.factors.ranks[0] % 16 == 0
    assert layer.executed_ms is not None
    assert layer.float_ms is not None
    assert layer.executed_ms < layer.float_ms
    assert any("times as fast" in note for note in result.notes)
