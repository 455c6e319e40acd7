"""Training in 8 bits: it starts from post-training quantization, keeps its places, and comes closer to the original."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper

from tests.worker.dying import Kept, Killed
from tests.worker.networks import normal, prepared
from tests.worker.passes.schooling import Job, save
from worker.engine.int8 import static_form
from worker.engine.int8.choosing import Choice
from worker.engine.int8.placement import Placement
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassResult

TEXT = (
    "network (float[N,8] x) => (float[N,6] y) { a = Gemm(x, w, b) r = Relu(a) c = Gemm(r, v, b) s = Relu(c) "
    "y = Gemm(s, h) }"
)
# Everything in int8, whatever is faster here, and as coarse as it gets: one scale a tensor, nothing corrected.
COARSE = {"placement": "kernels", "per_channel": False, "bias_correction": False, "weight_clipping": False}
LONG = {"epochs": 12, "batch_size": 32, "learning_rate": 1e-3}


def _network() -> ModelProto:
    """Channels of very different sizes, which one scale does badly."""
    sizes = np.logspace(-1.5, 0.5, 24, dtype=np.float32)
    constants = {"w": normal(8, 24) * sizes, "b": normal(24, seed=1), "v": normal(24, 24, seed=2) / 4 * sizes}
    return prepared(TEXT, **constants, h=normal(24, 6, seed=3))


def _sqnr_db(original: ModelFile, made: ModelFile) -> float:
    rows = {"x": normal(200, 8, seed=11)}
    left, right = (ort.InferenceSession(str(one.path)).run(None, rows)[0] for one in (original, made))
    return float(10 * np.log10(np.square(left).sum() / np.square(left - right).sum()))


def _run(folder: Path, model: ModelFile, **arguments: Any) -> PassResult:
    return Job(folder).run("quantize_aware_training", model, **COARSE | LONG | arguments)


def test_training_wins_back_what_rounding_took(tmp_path: Path) -> None:
    model = save(_network(), tmp_path / "model")
    narrow = {"calibration_method": "percentile", "percentile": 97.0, "keep_fidelity": False}
    static = Job(tmp_path / "static").run("quantize_static", model, **COARSE | narrow)
    learning = {"epochs": 40, "learning_rate": 3e-3, "kinds": {"y": "numbers"}}
    aware = _run(tmp_path / "aware", model, **narrow | learning)
    # Ranges that cut off 3 % of the values leave 8 dB; scales that are learned grow until little is cut off.
    assert _sqnr_db(model, aware.model) > _sqnr_db(model, static.model) + 5
    # The same tensors are rounded at the same places; a bias that was not there is learned.
    rounded = [
        [node.input[0] for node in onnx.load(one.model.path).graph.node if node.op_type == "QuantizeLinear"]
        for one in (static, aware)
    ]
    assert rounded[0] == rounded[1]
    assert any("planned as int8 run as int8" in note for note in aware.notes)
    assert any("scales were learned" in note for note in aware.notes)


@pytest.mark.parametrize(
    ("stop_after", "rest"),
    [
        # 12 epochs of 12 steps over 360 samples; of 144 the last fifth is 29.
        pytest.param(None, "rested for the last 29 of 144 steps.", id="to-the-end"),
        pytest.param(11, "rested for the last 17 of 132 steps.", id="ended-while-they-rest", marks=pytest.mark.long),
        pytest.param(2, "training ended before the steps in which they rest.", id="ended-before"),
    ],
)
def test_a_report_says_what_scales_did(stop_after: int | None, rest: str, tmp_path: Path) -> None:
    result = _run(tmp_path / "run", save(_network(), tmp_path / "model"), stop_after=stop_after)
    (scales,) = (note for note in result.notes if "scales were learned" in note)
    assert scales.endswith(rest)
    # Three matrices and a bias of each: scales are no weights.
    assert "6 weight tensors were trained." in result.notes


SHARED = (
    "network (float[N,8] x) => (float[N,6] y) { a = MatMul(x, w) r = Relu(a) b = MatMul(r, v) s = Relu(b) "
    "c = MatMul(s, v) t = Relu(c) d = MatMul(t, v) u = Relu(d) y = MatMul(u, h) }"
)


@pytest.mark.parametrize("bits", [pytest.param(8, id="8-bits", marks=pytest.mark.long), pytest.param(4, id="4-bits")])
def test_a_weight_that_several_products_read_is_trained_and_stored_once(bits: int, tmp_path: Path) -> None:
    constants = {"w": normal(8, 24), "v": normal(24, 24, seed=2) / 4, "h": normal(24, 6, seed=3)}
    model = save(prepared(SHARED, **constants), tmp_path / "model")
    # Ranges that cut off 3 % of the values leave something to be learned in 8 bits.
    narrow = {"calibration_method": "percentile", "percentile": 97.0, "keep_fidelity": False}
    result = _run(tmp_path / "run", model, weight_bits=bits, kinds={"y": "numbers"}, **narrow)
    assert "3 weight tensors were trained." in result.notes
    assert result.manifest["training"]["kept_epoch"]
    nodes, stored = onnx.load(result.model.path).graph.node, onnx.load(result.model.path).graph.initializer
    sizes = [numpy_helper.to_array(one).nbytes for one in stored]
    assert sum(size >= 24 * 24 * bits // 8 for size in sizes) == 1
    assert sum(node.op_type in {"DequantizeLinear", "MatMulIntegerToFloat"} for node in nodes) >= 5
    # A copy for each product, trained by itself, gave 17.9 and 16.4 dB; one for all three fits each a little less.
    assert result.manifest["delivered_fidelity"]["sqnr_db"] > (15 if bits == 8 else 13)


def test_a_weight_that_an_end_reads_as_well_stays_in_8_bits_for_all(tmp_path: Path) -> None:
    text = (
        "network (float[N,8] x) => (float[N,6] y) { a = MatMul(x, v) r = Relu(a) b = MatMul(r, v) s = Relu(b) "
        "y = MatMul(s, h) }"
    )
    model = save(prepared(text, v=normal(8, 8) / 2, h=normal(8, 6, seed=3)), tmp_path / "model")
    result = _run(tmp_path / "run", model, weight_bits=4, epochs=1)
    assert "2 weight tensors were trained." in result.notes
    assert "In 8 bits because they share the weight of a first or last node: 1." in result.notes
    stored = [numpy_helper.to_array(one) for one in onnx.load(result.model.path).graph.initializer]
    assert [array.dtype for array in stored if array.size == 8 * 8] == [np.int8]


@pytest.mark.long
def test_convolutions_over_one_axis_are_trained_in_8_bits(tmp_path: Path) -> None:
    text = (
        "network (float[N,4,12] x) => (float[N,6] y) { a = Conv(x, w, b) r = Relu(a) c = Conv(r, v) s = Relu(c) "
        "f = Flatten(s) y = Gemm(f, h) }"
    )
    constants = {"w": normal(8, 4, 3) / 3, "b": normal(8), "v": normal(8, 8, 3) / 5, "h": normal(64, 6) / 8}
    model = save(prepared(text, **constants), tmp_path / "model")
    job = Job(tmp_path / "run", {"x": normal(80, 4, 12)})
    result = job.run("quantize_aware_training", model, placement="kernels", epochs=1, batch_size=32)
    assert [layer.executed for layer in result.layers if layer.operator == "Conv"] == ["QLinearConv"] * 2
    # Three matrices; one bias that was there and two that are learned.
    assert "6 weight tensors were trained." in result.notes
    assert result.manifest["delivered_fidelity"]["sqnr_db"] > 25


def test_a_manifest_repeats_the_run(tmp_path: Path) -> None:
    model = save(_network(), tmp_path / "model")
    first = _run(tmp_path / "first", model, epochs=2)
    replay = {key: value for key, value in first.manifest["replay"].items() if key != "pass"}
    second = Job(tmp_path / "second").run("quantize_aware_training", model, **replay)
    assert second.model.sha256() == first.model.sha256()


def test_a_run_that_goes_on_ends_with_the_same_bytes_and_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt might measure another placement: it is given what the first one chose."""
    model = save(_network(), tmp_path / "model")
    last = model.structure().graph.node[-1].name

    def chosen(_prepared: ModelFile, everything: Placement, *_rest: Any) -> Choice:
        return Choice(everything.without([last], "slower here"))

    monkeypatch.setattr(static_form, "choose_placement", chosen)
    # One bit a weight leaves less than the 20 dB that are kept in 8.
    asked = {"placement": "measured", "per_channel": True, "weight_bits": "binary", "fidelity_floor_db": 20.0}
    asked = COARSE | LONG | asked | {"epochs": 3}
    whole = Job(tmp_path / "whole").run("quantize_aware_training", model, **asked)
    kept = Kept(tmp_path / "kept", after=2)
    with pytest.raises(Killed):
        Job(tmp_path / "killed", checkpoints=kept).run("quantize_aware_training", model, **asked)
    kept.after = 1_000
    monkeypatch.undo()
    resumed = Job(tmp_path / "resumed", checkpoints=kept).run("quantize_aware_training", model, **kept.chosen)
    assert "An earlier attempt had done 2 epochs: training went on from there." in resumed.notes
    assert resumed.model.sha256() == whole.model.sha256()
    assert resumed.manifest["replay"] == whole.manifest["replay"]
    warned = [note for note in whole.notes if note.startswith("The delivered file keeps less")]
    assert warned
    assert warned[0] in resumed.notes


def test_where_training_does_harm_the_post_training_form_is_delivered(tmp_path: Path) -> None:
    model = save(_network(), tmp_path / "model")
    static = Job(tmp_path / "static").run("quantize_static", model, **COARSE)
    # So large a step that every epoch is worse than none.
    spoilt = _run(tmp_path / "spoilt", model, epochs=1, learning_rate=50.0, clip_norm=None, averaging=None)
    assert spoilt.model.sha256() == static.model.sha256()
    assert any("No epoch was better" in note for note in spoilt.notes)


# A file of 24 x 24 weights in fewer bits: the first and the last layer have 336 of all 912, in 8 bits.
@pytest.mark.parametrize(
    ("bits", "levels", "packed_bytes"),
    [
        pytest.param(4, 16, 24 * 24 // 2, id="4-bits"),
        pytest.param(2, 4, 24 * 24 // 4, id="2-bits"),
        pytest.param("ternary", 3, 24 * 24 // 4, id="ternary"),
        pytest.param("binary", 2, 24 * 24 // 8, id="binary"),
    ],
)
def test_fewer_bits_lie_packed_and_run_in_the_8_bit_kernels(
    bits: int | str, levels: int, packed_bytes: int, tmp_path: Path
) -> None:
    model = save(_network(), tmp_path / "model")
    result = _run(tmp_path / "few", model, weight_bits=bits, epochs=3, keep_fidelity=False)
    constants = {one.name: numpy_helper.to_array(one) for one in onnx.load(result.model.path).graph.initializer}
    packed = [array for array in constants.values() if array.dtype == np.uint8 and array.ndim and array.size > 24]
    assert [array.nbytes for array in packed] == [packed_bytes]
    assert "All 3 nodes planned as int8 run as int8." in result.notes
    assert [layer.executed for layer in result.layers or () if layer.operator == "Gemm"] == ["QGemm"] * 3
    assert len(np.unique(_codes(result, tmp_path))) <= levels


def _codes(result: PassResult, folder: Path) -> np.ndarray:
    """Of the weight between the first and the last `(24, 24)`, as ONNX Runtime unpacks it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(result.model.path), options)
    loaded = [numpy_helper.to_array(one) for one in onnx.load(folder / "optimized.onnx").graph.initializer]
    (codes,) = [array for array in loaded if array.dtype == np.int8 and array.size == 24 * 24]
    return codes


@pytest.mark.parametrize(("bits", "stay"), [("ternary", True), ("binary", False)], ids=str)
def test_what_was_pruned_stays_zero_where_weights_may_be(bits: str, stay: bool, tmp_path: Path) -> None:
    network = _network()
    (held,) = [one for one in network.graph.initializer if one.name == "v"]
    weight = numpy_helper.to_array(held).copy()
    pruned = normal(24, 24, seed=5) < 0
    weight[pruned] = 0
    held.CopyFrom(numpy_helper.from_array(weight, "v"))
    result = _run(tmp_path / "few", save(network, tmp_path / "model"), weight_bits=bits, epochs=3, keep_fidelity=False)
    # Held at zero, binary ones would be the same sign for good. The runtime may keep the matrix transposed.
    array = _codes(result, tmp_path)
    codes = [array[pruned], array.T[pruned]]
    assert any((one == 0).all() for one in codes) is stay
    assert all(len(np.unique(one)) == 2 for one in codes) is not stay
    zeros = f"{int(pruned.sum())} weights in 1 tensors were zero and "
    assert [note.removeprefix(zeros) for note in result.notes if note.startswith(zeros)] == [
        "stayed so." if stay else "are so no more: binary weights have no zero."
    ]
    assert result.manifest["training"]["zeros_kept"] == (["v"] if stay else [])


@pytest.mark.long
def test_training_helps_most_where_bits_are_few(tmp_path: Path) -> None:
    model = save(_network(), tmp_path / "model")
    arguments = {"weight_bits": "ternary", "keep_fidelity": False, "kinds": {"y": "numbers"}, "per_channel": True}
    untrained, trained = (
        _run(tmp_path / str(epochs), model, **arguments, epochs=epochs, learning_rate=rate)
        for epochs, rate in ((1, 1e-7), (40, 3e-3))
    )
    # Three codes a weight leave little; weights that move to where rounding suits them win a good part of it back.
    assert _sqnr_db(model, trained.model) > _sqnr_db(model, untrained.model) + 2


BRANCHES = (
    "network (float[N,8] x) => (float[N,6] y, float[N,6] z) { a = Gemm(x, w) r = Relu(a) c = Gemm(r, v) s = Relu(c) "
    "y = Gemm(s, h) z = Gemm(s, k) }"
)


def test_every_head_stays_in_8_bits(tmp_path: Path) -> None:
    constants = {
        "w": normal(8, 24),
        "v": normal(24, 24, seed=2),
        "h": normal(24, 6, seed=3),
        "k": normal(24, 6, seed=4),
    }
    model = save(prepared(BRANCHES, **constants), tmp_path / "model")
    result = _run(tmp_path / "few", model, weight_bits=4, epochs=1, keep_fidelity=False)
    found = next(note for note in result.notes if note.startswith("Weights of"))
    assert found.startswith("Weights of 1 of 4 nodes in int8 are 4 bits, packed in the file, and those of the 3 first")
    # No kernel computes in fewer bits: what runs in its place is said.
    assert found.endswith("takes them apart when it loads the file and runs them in its 8-bit kernels.")


def test_where_there_are_only_ends_it_is_said_that_nothing_is_in_fewer_bits(tmp_path: Path) -> None:
    text = "network (float[N,8] x) => (float[N,6] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, h) }"
    model = save(prepared(text, w=normal(8, 8) / 2, h=normal(8, 6, seed=3)), tmp_path / "model")
    result = _run(tmp_path / "few", model, weight_bits=4, epochs=1, keep_fidelity=False)
    said = "No weights are 4 bits: of 2 nodes in int8 none is left between the first and last ones"
    assert any(note.startswith(said) for note in result.notes)
    assert not any(note.startswith("Weights of 0") for note in result.notes)


def test_weights_that_stay_in_float_are_counted(tmp_path: Path) -> None:
    model = save(_network(), tmp_path / "model")
    node = model.structure().graph.node[2].name
    result = _run(tmp_path / "few", model, weight_bits=4, epochs=1, keep_fidelity=False, exclude=[node])
    assert "Nodes left in float although they have an int8 kernel: 1, with 576 weights." in result.notes


# In 8 bits this network keeps 20 dB and more; one bit a weight leaves less than 20, however it is trained.
@pytest.mark.parametrize(("bits", "held"), [(8, True), ("binary", False)], ids=str)
def test_the_floor_is_measured_on_what_is_delivered(bits: int | str, held: bool, tmp_path: Path) -> None:
    model = save(_network(), tmp_path / "model")
    fine = {"per_channel": True, "fidelity_floor_db": 20.0, "kinds": {"y": "numbers"}}
    result = _run(tmp_path / "few", model, weight_bits=bits, epochs=2, **fine)
    warned = [note for note in result.notes if note.startswith("The delivered file keeps less")]
    assert (not warned) is held
    assert (result.manifest["delivered_fidelity"]["sqnr_db"] >= 20.0) is held
