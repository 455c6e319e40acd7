"""Weights in few bits: what the file holds, what runs, and what stays."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from worker.engine import preparation, timing
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.profiling import NodeTime, profile
from worker.engine.sessions import session_options
from worker.engine.weight_only import choosing
from worker.engine.weight_only.places import Place
from worker.passes.registry import load_pass

FLOATS = TensorProto.FLOAT
ROWS, WIDTH, LENGTH = 400, 64, 6


def _apply(
    model: onnx.ModelProto,
    folder: Path,
    arrays: dict[str, np.ndarray],
    name: str = "quantize_weights",
    **arguments: Any,
) -> PassResult:
    folder.mkdir(exist_ok=True)
    file = ModelFile(networks.save(model, folder / "model"))
    (folder / "scratch").mkdir()
    feeds = match_arrays(inputs_of(file.structure()), arrays, "the data")
    deadline = arguments.pop("deadline", float("inf"))
    config = CATALOGUE[name].config.model_validate({"pass": name, **arguments})
    return load_pass(name)(file, config, PassContext(folder / "scratch", feeds, seed=0, threads=1, deadline=deadline))


def _images(count: int = 2) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(1).standard_normal((count, 3, 16, 16)).astype(np.float32)}


def _rows(count: int = 2, width: int = 8) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((count, width)).astype(np.float32)}


def _executed(model: ModelFile, folder: Path) -> Counter[str]:
    """Operators of the graph as ONNX Runtime optimizes it for this machine."""
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "executed.onnx")
    ort.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "executed.onnx").graph.node)


def _run(model: ModelFile, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def _sqnr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - actual) ** 2)))


def _upsampling() -> onnx.ModelProto:
    """`x` (N, 8, 4, 4) -> `y` (N, 4, 8, 8): ConvTranspose, and a constant map that is added."""
    generator = np.random.default_rng(0)
    weights = {
        "filter": generator.standard_normal((8, 4, 2, 2)).astype(np.float32),
        "map": generator.standard_normal((1, 4, 8, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("ConvTranspose", ["x", "filter"], ["up"], "up", strides=[2, 2]),
        helper.make_node("Add", ["up", "map"], ["y"], "add"),
    ]
    return networks.assemble(nodes, {"x": (FLOATS, ["N", 8, 4, 4])}, {"y": (FLOATS, ["N", 4, 8, 8])}, weights)


TABLE = np.random.default_rng(0).standard_normal((ROWS, WIDTH)) * np.geomspace(0.01, 100, ROWS)[:, None]


def _embedding(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """`ids` (N, LENGTH) int64 -> `y`: what `nodes` make of `rows` of a table, and of the table."""
    inputs: dict[str, Any] = {"ids": (TensorProto.INT64, ["N", LENGTH])}
    weights = {"table": TABLE.astype(np.float32), "flat": np.array([-1, WIDTH])}
    gather = helper.make_node("Gather", ["table", "ids"], ["rows"], "embed")
    return networks.assemble([gather, *nodes], inputs, {"y": (FLOATS, None)}, weights)


IDS = {"ids": np.random.default_rng(1).integers(0, ROWS, (2, LENGTH))}
MODELS = {
    "convolutions": (networks.convnet(), _images()),
    "products": (networks.perceptron(width=64), _rows()),
    "lstm": (networks.recurrent(), {"x": np.ones((2, 5, 1, 3), np.float32)}),
    "upsampling": (_upsampling(), {"x": np.ones((2, 8, 4, 4), np.float32)}),
}


@pytest.mark.parametrize("name", MODELS)
def test_static_quantization_in_16_bits_stores_weights_so_and_computes_in_float(name: str, tmp_path: Path) -> None:
    model, arrays = MODELS[name]
    wide = {name: np.repeat(array, 2, axis=0) for name, array in arrays.items()}
    static = _apply(model, tmp_path / "static", wide, "quantize_static", bits=16)
    stored = _apply(model, tmp_path / "stored", wide, bits=16)
    assert static.model.path.read_bytes() == stored.model.path.read_bytes()
    assert "16 bits are for size, and activations stay in float" in static.notes[0]
    assert static.notes[1:] == stored.notes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_stored_weights_leave_no_trace_in_the_graph_that_runs(bits: int, name: str, tmp_path: Path) -> None:
    model, arrays = MODELS[name]
    result = _apply(model, tmp_path, arrays, bits=bits, kernels="stored", minimum_elements=1)
    held = {node.op_type for node in result.model.structure().graph.node}
    assert "Cast" in held
    executed = _executed(result.model, tmp_path)
    assert executed == _executed(ModelFile(tmp_path / "model" / "model.onnx"), tmp_path)
    assert executed.keys().isdisjoint({"Cast", "Mul", "Sub", "BitShift", "Reshape", "Slice"})
    assert any("the kernels are those of float" in note for note in result.notes)


def test_only_the_rows_that_are_read_are_converted(tmp_path: Path) -> None:
    result = _apply(_embedding(helper.make_node("Relu", ["rows"], ["y"], "relu")), tmp_path, IDS)
    feed = {"ids": IDS["ids"][:1]}
    ran = profile(result.model, feed, 1, tmp_path, seconds=0.1, device="cpu")
    assert Counter(time.operator for time in ran) == {"Gather": 2, "Cast": 1, "Mul": 1, "Relu": 1}
    elements = {time.operator: time.elements for time in ran}
    assert elements["Cast"] == elements["Mul"] == LENGTH * WIDTH
    tables = {tuple(tensor.dims): tensor.data_type for tensor in result.model.structure().graph.initializer}
    assert tables == {(ROWS, WIDTH): TensorProto.INT8, (ROWS, 1): FLOATS}
    # Rows of all sizes: with a scale of its own each keeps what 8 bits keep of normal values, 40 dB and more.
    expected, actual = np.maximum(TABLE[feed["ids"]], 0), _run(result.model, feed)
    assert min(_sqnr_db(left, right) for left, right in zip(expected[0], actual[0], strict=True)) > 38


def test_a_tied_embedding_is_held_once(tmp_path: Path) -> None:
    """The rows of the Gather and the matrix of the Gemm are the same codes."""
    flatten = helper.make_node("Reshape", ["rows", "flat"], ["x"], "flatten")
    model = _embedding(flatten, helper.make_node("Gemm", ["x", "table"], ["y"], "head", transB=1))
    result = _apply(model, tmp_path, IDS)
    large = [tensor for tensor in result.model.structure().graph.initializer if np.prod(tensor.dims) >= ROWS * WIDTH]
    assert [tensor.data_type for tensor in large] == [TensorProto.INT8]
    assert _executed(result.model, tmp_path) == {"Gather": 2, "Cast": 1, "Mul": 1, "Reshape": 1, "Gemm": 1}
    feed = {"ids": IDS["ids"][:1]}
    before = _run(ModelFile(tmp_path / "model" / "model.onnx"), feed)
    # Two times the noise of 8 bits by row, 40 dB each.
    assert _sqnr_db(before, _run(result.model, feed)) > 35


# Bits, and what a scale of 4 bytes for 128 weights, the small first layer and names add.
@pytest.mark.parametrize(("bits", "share"), [(4, 0.17), (8, 0.27), (16, 0.52)])
@pytest.mark.parametrize("kernels", ["stored", "matmul_nbits"])
def test_the_file_is_as_small_as_its_bits(kernels: str, bits: int, share: float, tmp_path: Path) -> None:
    if bits == 16:
        kernels = "stored"
    generator = np.random.default_rng(0)
    weights = {"w": generator.standard_normal((512, 512)).astype(np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    model = networks.assemble([node], {"x": (FLOATS, ["N", 512])}, {"y": (FLOATS, ["N", 512])}, weights)
    result = _apply(model, tmp_path, _rows(width=512), bits=bits, kernels=kernels)
    assert result.model.size_bytes() < share * len(model.SerializeToString())
    x = _rows(16, 512)["x"]
    floor_db = {4: 18.0, 8: 38.0, 16: 75.0}[bits]
    assert _sqnr_db(x @ weights["w"], _run(result.model, {"x": x})) > floor_db


def test_products_run_as_matmulnbits_when_asked(tmp_path: Path) -> None:
    tokens = {"tokens": np.random.default_rng(0).integers(0, 50, (2, 6))}
    model = networks.attention_block()
    result = _apply(model, tmp_path, tokens, kernels="matmul_nbits", minimum_elements=1)
    executed = _executed(result.model, tmp_path)
    # Two products of activations with each other stay.
    assert (executed["MatMulNBits"], executed["MatMul"] + executed["FusedMatMul"]) == (4, 2)
    assert any(note == "MatMulNBits, 8 bits: weights of 4 MatMul." for note in result.notes)
    expected = _run(ModelFile(tmp_path / "model" / "model.onnx"), {"tokens": tokens["tokens"][:1]})
    # 8-bit weights by blocks and 8-bit activations, four products one behind another.
    assert _sqnr_db(expected, _run(result.model, {"tokens": tokens["tokens"][:1]})) > 30


def test_once_more_changes_nothing_and_folding_does_not_undo_it(tmp_path: Path) -> None:
    for number, arguments in enumerate(({"bits": 4}, {"bits": 8}, {"bits": 8, "kernels": "matmul_nbits"})):
        folder = tmp_path / str(number)
        first = _apply(networks.perceptron(width=64), folder, _rows(), minimum_elements=1, **arguments)
        again = _apply(first.model.load(), folder / "again", _rows(), minimum_elements=1)
        assert not again.modified
        assert "nothing was changed" in again.notes[-1]
        folded = _apply(first.model.load(), folder / "folded", _rows(), name="optimize_graph")
        assert folded.model.size_bytes() < 1.1 * first.model.size_bytes()


def test_what_stays_is_said(tmp_path: Path) -> None:
    arguments = {"minimum_elements": 1, "exclude": ["stem", "no such node"]}
    result = _apply(networks.convnet(), tmp_path, _images(), **arguments)
    assert "In float32: 1 tensors (excluded by the recipe)." in result.notes
    assert any("no such node" in note for note in result.notes)
    kinds = {tensor.name: tensor.data_type for tensor in result.model.structure().graph.initializer}
    # BatchNorm was folded into it, under another name.
    assert [kind for name, kind in kinds.items() if name.endswith("stem.weight")] == [FLOATS]
    assert len(result.manifest["weights"]) == 3


def test_a_model_of_small_tensors_is_left_alone(tmp_path: Path) -> None:
    result = _apply(networks.convnet(), tmp_path, _images())
    assert not result.modified
    assert result.notes[-1] == "No weight of 1024 elements or more is left in float32; nothing was changed."


def test_that_no_other_weight_is_left_is_said(tmp_path: Path) -> None:
    proto = networks.perceptron()
    for name in ("first", "second"):
        shape = {"first": [8, 32], "second": [32, 4]}[name]
        proto.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}.weight", FLOATS, shape))
    result = _apply(proto, tmp_path, _rows(), minimum_elements=1)
    assert not result.modified
    assert "In float32: 2 tensors (an output of the model)." in result.notes
    assert result.notes[-1] == "No other weight of 1 elements or more is left in float32; nothing was changed."


def test_four_bits_are_eight_where_an_opset_has_no_shifts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a conversion that the model does not survive."""
    monkeypatch.setattr(preparation, "LEAST_OPSET", 10)
    result = _apply(networks.perceptron(opset=10), tmp_path, _rows(), minimum_elements=1, bits=4, kernels="stored")
    assert "4 bits are unpacked by shifts, which opset 10 lacks: weights get 8 bits." in result.notes
    assert set(result.manifest["weights"].values()) == {"8 bits by output channel"}
    exact, made = (_run(file, _rows()) for file in (ModelFile(tmp_path / "model" / "model.onnx"), result.model))
    assert _sqnr_db(exact, made) > 30


def _times(milliseconds: dict[str, float]) -> list[NodeTime]:
    return [NodeTime(name, "MatMul", "float", value, 1) for name, value in milliseconds.items()]


@pytest.mark.parametrize(
    ("packed_ms", "rounds", "expected"),
    [
        ({"first": 0.1, "second": 0.1}, [1.5] * 5, 2),
        ({"first": 5.0, "second": 0.1}, [1.5] * 5, 1),
        ({"first": 0.95, "second": 0.95}, [1.5] * 5, 0),
        ({"first": 0.1, "second": 0.1}, [0.9] * 5, 0),
        ({"first": 0.1, "second": 0.1}, [1.5, 1.5, 0.7, 0.7, 1.5], 0),
    ],
    ids=["all-faster", "one-faster", "hardly-faster", "slower-as-a-whole", "rounds-disagree"],
)
def test_a_profile_proposes_and_turns_decide(
    packed_ms: dict[str, float], rounds: list[float], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Measurements are given here, so that the machine has no say in the test."""
    profiles = iter([_times({"first": 1.0, "second": 1.0}), _times(packed_ms)])
    monkeypatch.setattr(choosing, "profiled", lambda _model, _context: next(profiles))
    monkeypatch.setattr(choosing, "times_as_fast", lambda *_: [[1.0] * len(rounds), rounds])
    result = _apply(networks.perceptron(), tmp_path, _rows(), minimum_elements=1)
    assert _executed(result.model, tmp_path)["MatMulNBits"] == expected
    assert any("Measured here" in note for note in result.notes)
    # What was chosen by measuring is repeated without.
    again = _apply(networks.perceptron(), tmp_path / "again", _rows(), **_arguments(result.manifest["replay"]))
    assert again.model.sha256() == result.model.sha256()
    assert not any("Measured here" in note for note in again.notes)
    # What is said of each weight is said of the form that was delivered, whichever others were tried.
    assert again.layers == result.layers


def _arguments(replay: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in replay.items() if name != "pass"}


@pytest.mark.parametrize(
    ("model", "arrays"),
    [
        (networks.perceptron(), _rows()),
        (networks.attention_block(), {"tokens": np.random.default_rng(0).integers(0, 50, (2, 6))}),
    ],
    ids=["fused-with-bias-and-activation", "attention"],
)
def test_every_product_is_found_in_both_profiles(
    model: onnx.ModelProto, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under whatever name the runtime gives to its kernel. The clock may stand still during a kernel this small."""
    seen: list[dict[str, list[str]]] = []

    def matching(place: Place, times: list[NodeTime]) -> float:
        names = [time.operator for time in times if choosing.stands_for(time, place)]
        seen.append({place.name: names})
        return 1.0

    monkeypatch.setattr(timing, "LEAST_MILLISECONDS", 0.0)
    monkeypatch.setattr(choosing, "product_ms", matching)
    _apply(model, tmp_path, arrays, minimum_elements=1)
    assert len(seen) >= 4
    assert all(names for found in seen for names in found.values()), seen


def test_without_time_to_measure_weights_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_MILLISECONDS", 0.0)  # small as it is, it is worth measuring
    model = networks.perceptron(width=4096)
    result = _apply(model, tmp_path, _rows(), bits=4, deadline=time.monotonic() + choosing.TURNS_SECONDS)
    assert "MatMulNBits" not in _executed(result.model, tmp_path)
    assert any("No time was left to measure" in note for note in result.notes)


@pytest.mark.parametrize(("bits", "least_db"), [(4, 15), (8, 35), (16, 80)])
def test_what_each_weight_lost_is_told(bits: int, least_db: float, tmp_path: Path) -> None:
    """Of normal weights: 6 dB a bit, less what the largest of a block or a channel takes."""
    model = networks.perceptron(width=64)
    result = _apply(model, tmp_path, _rows(), bits=bits, minimum_elements=1)
    assert [layer.weight for layer in result.layers] == ["first.weight", "second.weight"]
    assert all(least_db < (layer.weight_sqnr_db or 0) < least_db + 25 for layer in result.layers), result.layers
