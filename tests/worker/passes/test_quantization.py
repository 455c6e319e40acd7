"""What the quantization passes leave alone, and what they say about it."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from tests.worker.networks import normal, parse, prepared
from worker.engine import fidelity, pass_contract
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.int8 import static_form
from worker.engine.int8.choosing import NO_TIME, Choice
from worker.engine.int8.placement import Placement
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import BudgetExhausted, PassContext, PassResult
from worker.engine.preparation import operator_counts
from worker.engine.sessions import open_session, run_session
from worker.passes import quantize_dynamic
from worker.passes.registry import load_pass

FLOATS = TensorProto.FLOAT


def _apply(
    name: str, model: onnx.ModelProto, folder: Path, arrays: dict[str, np.ndarray], **parameters: Any
) -> PassResult:
    file = ModelFile(networks.save(model, folder / "model"))
    feeds: Feeds = match_arrays(inputs_of(file.structure()), arrays, "the data")
    scratch = folder / "scratch"
    scratch.mkdir()
    deadline, least = parameters.pop("deadline", float("inf")), parameters.pop("instruction_set", None)
    phase = parameters.pop("phase", lambda _name: None)
    config = CATALOGUE[name].config.model_validate({"pass": name, **parameters})
    context = PassContext(scratch, feeds, 0, 1, deadline=deadline, instruction_set=least, phase=phase)
    return load_pass(name)(file, config, context)


def _images(count: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, channels, 16, 16)).astype(np.float32)


def _one_conv(groups: int, channels: int = 8) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((channels, channels // groups, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "weight"], ["y"], "conv", group=groups, pads=[1, 1, 1, 1])
    shape: list[int | str | None] = ["N", channels, 16, 16]
    return networks.assemble([node], {"image": (FLOATS, shape)}, {"y": (FLOATS, shape)}, {"weight": weight})


def test_weights_are_signed_per_channel_and_activations_unsigned(tmp_path: Path) -> None:
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": _images(8)})
    initializers = {tensor.name: tensor for tensor in result.model.load().graph.initializer}
    nodes = result.model.load().graph.node
    weights = [node for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] in initializers]
    kinds = {initializers[node.input[0]].data_type for node in weights}
    assert kinds == {TensorProto.INT8, TensorProto.INT32}
    scales = [list(initializers[node.input[1]].dims) for node in weights if "stem.weight" in node.input[0]]
    zeros = [
        initializers[node.input[2]].data_type
        for node in nodes
        if node.op_type == "QuantizeLinear" and node.input[2] in initializers
    ]
    assert set(zeros) == {TensorProto.UINT8}
    assert all(scale == [8] for scale in scales)


@pytest.mark.parametrize(
    ("groups", "quantized"), [(1, True), (8, True), (4, False)], ids=["full", "depthwise", "grouped"]
)
def test_grouped_convolutions_stay_in_float(groups: int, quantized: bool, tmp_path: Path) -> None:
    result = _apply("quantize_static", _one_conv(groups), tmp_path, {"image": _images(4, channels=8)})
    assert result.modified == quantized
    assert any("grouped convolution" in note for note in result.notes) != quantized


def test_attention_products_and_softmax_stay_in_float(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, (16, 6))
    result = _apply("quantize_static", networks.attention_block(), tmp_path, {"tokens": tokens})
    structure = result.model.structure()
    producers = {name: node for node in structure.graph.node for name in node.output}
    scores = next(node for node in structure.graph.node if node.name == "scores")
    projected = next(node for node in structure.graph.node if node.name == "out")
    assert all(producers[name].op_type != "DequantizeLinear" for name in scores.input)
    assert all(producers[name].op_type == "DequantizeLinear" for name in projected.input)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_clipping_methods_shrink_ranges_that_outliers_stretch(method: str, tmp_path: Path) -> None:
    images = _images(32)
    images[0, 0, 0, 0] = 500.0
    scales = {}
    for name in ("minmax", method):
        folder = tmp_path / name
        folder.mkdir()
        result = _apply("quantize_static", networks.convnet(), folder, {"image": images}, calibration_method=name)
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.model.load().graph.initializer}
        scales[name] = float(tensors["image_scale"])
    # One value in 24,576 set the range of 500; the others lie within 5.
    assert scales["minmax"] == pytest.approx(500 / 255, rel=0.05)
    assert scales[method] < scales["minmax"] / 5


def test_ranges_do_not_depend_on_how_much_memory_samples_share(tmp_path: Path) -> None:
    """Ranges are streamed: those of 8 samples are those of the same 8 given as two halves in another order."""
    images = _images(8)
    found = []
    for number, order in enumerate((np.arange(8), np.arange(8)[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = _apply("quantize_static", networks.convnet(), folder, {"image": images[order]})
        found.append(result.model.path.read_bytes())
    assert found[0] == found[1]


def test_calibration_reads_at_most_the_samples_asked_for(tmp_path: Path) -> None:
    images = np.concatenate([_images(4), np.full((1, 3, 16, 16), np.nan, np.float32)])
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": images}, calibration_samples=4)
    assert result.modified
    assert result.manifest["calibration_samples"] == 4


def test_nodes_that_nan_passes_through_stay_in_float(tmp_path: Path) -> None:
    images = np.full((2, 3, 16, 16), np.nan, np.float32)
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": images})
    assert any("NaN or infinity" in note for note in result.notes)


def test_excluded_nodes_stay_in_float_and_unknown_names_are_said(tmp_path: Path) -> None:
    result = _apply(
        "quantize_static", networks.convnet(), tmp_path, {"image": _images(4)}, exclude=["stem", "no such node"]
    )
    structure = result.model.structure()
    producers = {name: node.op_type for node in structure.graph.node for name in node.output}
    stem = next(node for node in structure.graph.node if node.name == "stem")
    assert producers.get(stem.input[1]) != "DequantizeLinear"
    assert any("no such node" in note for note in result.notes)


def test_dynamic_quantization_takes_only_the_operators_asked_for(tmp_path: Path) -> None:
    result = _apply("quantize_dynamic", networks.convnet(), tmp_path, {"image": _images(2)}, operators=["LSTM"])
    assert not result.modified
    assert operator_counts(result.model.structure()) == operator_counts(networks.convnet())


@pytest.mark.parametrize(
    ("body", "constants", "opset", "left"),
    [
        ("y = MatMul(p, v)", {"v": normal(2, 8, 8)}, 17, "MatMul"),
        ("y = MatMul(p, v)", {"v": normal(8)}, 17, "MatMul"),
        ("y = Attention(p, p, p)", {}, 23, "Attention"),
    ],
    ids=["stack-of-matrices", "vector", "attention-of-the-standard"],
)
def test_what_no_dynamic_kernel_computes_stays_in_float(
    body: str, constants: dict[str, np.ndarray], opset: int, left: str, tmp_path: Path
) -> None:
    text = f"network (float[2,2,6,8] x) => (float[a,b,c,d] y) {{ p = MatMul(x, w) {body} }}"
    x = normal(2, 2, 6, 8)
    model = prepared(text, opset, w=normal(8, 8), **constants)
    result = _apply("quantize_dynamic", model, tmp_path, {"x": x[None]})
    counts = operator_counts(result.model.structure())
    assert (counts["DynamicQuantizeMatMul"], counts[left]) == (1, 1)
    assert any(f"In float: 1 {left}" in note for note in result.notes)
    before, after = (
        run_session(open_session(path, 1), {"x": x})[0]
        for path in (tmp_path / "model" / "model.onnx", result.model.path)
    )
    # Weights and activations in 8 bits, two products: within a twentieth of the largest.
    np.testing.assert_allclose(after, before, atol=0.05 * float(np.abs(before).max()))


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("p = MatMul(x, w) y = Add(p, b)", {"b": normal(4)}),
        ("p = MatMul(x, w) a = Add(p, b) y = Sigmoid(a)", {"b": normal(4)}),
        ("p = MatMul(x, w) a = Add(p, b) y = Tanh(a)", {"b": normal(4)}),
        (
            "p = MatMul(x, w) s = Sigmoid(p) p_dequantized = Tanh(x) p_scale = Neg(p_dequantized) "
            "y = Concat<axis = 2>(s, p_scale)",
            {},
        ),
    ],
    ids=["bias-at-the-end", "bias-read-in-int8", "bias-read-in-float", "names-like-ours"],
)
def test_every_node_in_int8_is_accounted_for(body: str, constants: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = prepared(f"network (float[N,5,8] x) => (float[N,5,k] y) {{ {body} }}", w=normal(8, 4), **constants)
    result = _apply("quantize_static", model, tmp_path, {"x": normal(8, 5, 8)}, placement="kernels")
    account = {layer.name: (layer.sqnr_db, layer.sensitivity_db) for layer in result.layers if layer.planned == "int8"}
    assert "MatMul_0" in account
    # Two or three roundings to 7 and 8 bits over ranges of their own.
    assert all(decibels is not None and decibels > 25 for both in account.values() for decibels in both)


def test_a_pass_out_of_time_says_so(tmp_path: Path) -> None:
    with pytest.raises(BudgetExhausted):
        _apply("quantize_static", networks.convnet(), tmp_path, {"image": _images(2)}, deadline=0.0)


def _replayed(result: PassResult, folder: Path, model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> PassResult:
    """The pass run again with the choices of its manifest."""
    parameters = dict(result.manifest["replay"])
    folder.mkdir()
    return _apply(parameters.pop("pass"), model, folder, arrays, **parameters)


def test_choices_of_timing_are_replayed_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool left in float keeps the range of what it reads: calibrated by itself it would have another."""

    def chosen(_prepared: ModelFile, everything: Placement, *_rest: Any) -> Choice:
        return Choice(everything.without(["pool", "depthwise"], "slower here"))

    monkeypatch.setattr(static_form, "choose_placement", chosen)
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": _images(16)})
    again = _replayed(result, tmp_path / "again", networks.convnet(), {"image": _images(16)})
    assert again.modified
    assert again.model.sha256() == result.model.sha256()
    assert again.manifest["replay"] == result.manifest["replay"]


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
def test_for_processors_without_vnni_weights_are_rounded_so_that_nothing_saturates(name: str, tmp_path: Path) -> None:
    """As where `reduce_range` is asked for, on whatever processor this runs."""
    model, arrays = networks.perceptron(), {"x": networks.normal(16, 8)}
    digests = []
    for number, options in enumerate(({"reduce_range": True}, {"instruction_set": "avx2"})):
        (tmp_path / str(number)).mkdir()
        result = _apply(name, model, tmp_path / str(number), arrays, placement="kernels", **options)
        assert result.modified
        digests.append(result.model.sha256())
    assert digests[0] == digests[1]


def test_nodes_given_back_to_float_are_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    # All of the network keeps 47 dB, half of it 52.
    asked = {"placement": "kernels", "reduce_range": True, "fidelity_floor_db": 50}
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": _images(16)}, **asked)
    assert result.modified
    assert result.manifest["replay"]["given_back"]
    again = _replayed(result, tmp_path / "again", networks.convnet(), {"image": _images(16)})
    assert again.model.sha256() == result.model.sha256()


class _Calls:
    """Counts the calls that fidelity is measured by, from the phase on in which the job's time ends."""

    def __init__(self, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self._last, self._late = 0, last, 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self._late)
        monkeypatch.setattr(pass_contract, "time", clock)
        monkeypatch.setattr(fidelity, "run_session", self._run)

    def phase(self, name: str) -> None:
        if name == self._last:
            self._late, self.count = 1e6, 0

    def _run(self, *arguments: Any) -> list[Any]:
        self.count += 1
        return run_session(*arguments)


@pytest.mark.parametrize(
    ("last", "calls", "plain"),
    [
        # Of one method of ranges, and whether the floor holds: of both files a call each.
        pytest.param("comparing", 4, True, id="at the ranges"),
        pytest.param("rounding", 2, True, id="at the rounding"),
        pytest.param("checking", 2, False, id="at the check"),
    ],
)
def test_an_int8_file_is_made_whenever_time_ends_behind_calibration(
    last: str, calls: int, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow model would be stopped with nothing delivered, for a hundred calls that nobody waited for."""
    counted = _Calls(last, monkeypatch)
    asked = {"placement": "kernels", "reduce_range": True, "deadline": time.monotonic() + 1e5, "phase": counted.phase}
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": _images(16)}, **asked)
    assert result.modified
    assert counted.count == calls
    assert any("weights were rounded plainly" in note for note in result.notes) is plain
    assert result.manifest["replay"]["input_samples"] == (0 if plain else 16)
    monkeypatch.undo()
    again = _replayed(result, tmp_path / "again", networks.convnet(), {"image": _images(16)})
    assert again.model.sha256() == result.model.sha256()


def test_products_left_in_float_are_replayed_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products share a conversion, the third is left in float; and every node with weights is accounted for."""

    def chosen(_prepared: ModelFile, everything: Placement, *_rest: Any) -> Choice:
        return Choice(everything.without(["query"], "slower here"))

    monkeypatch.setattr(quantize_dynamic, "choose_placement", chosen)
    tokens = {"tokens": np.random.default_rng(0).integers(0, 50, (4, 6))}
    result = _apply("quantize_dynamic", networks.attention_block(), tmp_path, tokens)
    again = _replayed(result, tmp_path / "again", networks.attention_block(), tokens)
    assert again.model.sha256() == result.model.sha256()
    counts = operator_counts(result.model.structure())
    assert (counts["MatMulIntegerToFloat"], counts["DynamicQuantizeMatMul"], counts["MatMul"]) == (2, 1, 3)
    account = {layer.name: layer for layer in result.layers}
    assert {name for name, layer in account.items() if layer.planned == "int8"} == {"key", "value", "out"}
    assert account["query"].reason == "slower here"
    # Weights and activations in 8 bits over ranges of their own: 30 dB a product, and one stands behind others.
    assert all((account[name].sqnr_db or 0) > 20 for name in ("key", "value", "out"))
    # Alone, each loses less at the outputs than all of them do.
    together = min(layer.sqnr_db for layer in account.values() if layer.sqnr_db is not None)
    assert all((account[name].sensitivity_db or 0) >= together for name in ("key", "value", "out"))
    assert all("Integer" in str(account[name].executed) for name in ("key", "value"))


def test_without_time_to_measure_everything_is_quantized_and_that_is_said(tmp_path: Path) -> None:
    model = prepared("network (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", w=normal(8, 8))
    result = _apply("quantize_dynamic", model, tmp_path, {"x": normal(2, 8)}, deadline=time.monotonic() + 5)
    assert result.modified
    assert NO_TIME in result.notes


def test_the_faster_form_of_a_model_is_kept(tmp_path: Path) -> None:
    """A product long enough to be timed: what was measured stands in the manifest."""
    model = prepared("network (float[N,512] x) => (float[N,2048] y) { y = MatMul(x, w) }", w=normal(512, 2048))
    result = _apply("quantize_dynamic", model, tmp_path, {"x": normal(1, 256, 512)})
    assert {"float", "everything"} <= set(result.manifest["placement"]["ratios"])
    assert result.modified == (result.manifest["replay"]["in_float"] == [])
    assert [layer.name for layer in result.layers] == ["MatMul_0"]
    assert result.layers[0].float_ms


@pytest.mark.parametrize(("per_channel", "scales"), [("auto", 1), (True, 32), (False, 1)], ids=str)
def test_channels_that_share_a_scale_have_one_number(per_channel: bool | str, scales: int, tmp_path: Path) -> None:
    model = prepared("network (float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", w=normal(64, 32))
    result = _apply("quantize_static", model, tmp_path, {"x": normal(16, 64)}, per_channel=per_channel)
    constants = onnx.load(result.model.path).graph.initializer
    assert {numpy_helper.to_array(one).size for one in constants if one.name.endswith("w_scale")} == {scales}


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
@pytest.mark.parametrize("wanted", ["prepared", "original"])
def test_without_anything_in_int8_the_graph_made_ready_may_be_delivered(name: str, wanted: str, tmp_path: Path) -> None:
    """BatchNorm folds into its convolution whether or not that runs in int8."""
    nodes = [node.name for node in networks.convnet().graph.node]
    asked = {"exclude": nodes, "without_int8": wanted}
    result = _apply(name, networks.convnet(), tmp_path, {"image": _images(4)}, **asked)
    assert result.modified is (wanted == "prepared")
    assert ("BatchNormalization" in operator_counts(result.model.structure())) is (wanted == "original")
    again = _replayed(result, tmp_path / "again", networks.convnet(), {"image": _images(4)})
    assert again.model.sha256() == result.model.sha256()


def test_what_gives_up_its_speed_for_fidelity_is_left_in_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the nodes given back, and the rest no longer faster than float."""
    measured = {"float": [1.0] * 5, "rescued": [0.9, 0.95, 0.97, 0.93, 0.99]}
    monkeypatch.setattr(static_form, "measure_candidates", lambda *_: measured)
    monkeypatch.setattr(
        static_form, "choose_placement", lambda _prepared, everything, *_: Choice(everything, {"float": [1.0]})
    )
    asked = {"reduce_range": True, "fidelity_floor_db": 50}
    result = _apply("quantize_static", networks.convnet(), tmp_path, {"image": _images(16)}, **asked)
    assert any("measured 0.95 times as fast as float" in note for note in result.notes)
    assert not result.modified
    again = _replayed(result, tmp_path / "again", networks.convnet(), {"image": _images(16)})
    assert again.model.sha256() == result.model.sha256()


def test_static_without_time_to_measure_is_delivered_and_replayed(tmp_path: Path) -> None:
    """Less is left than timing takes: every node that has an int8 kernel is in int8, and that is said."""
    arrays = {"image": _images(16)}
    result = _apply("quantize_static", networks.convnet(), tmp_path, arrays, deadline=time.monotonic() + 10)
    assert result.modified
    assert NO_TIME in result.notes
    again = _replayed(result, tmp_path / "again", networks.convnet(), arrays)
    assert again.model.sha256() == result.model.sha256()


def test_a_weight_that_two_products_read_is_stored_once(tmp_path: Path) -> None:
    body = "{ p = MatMul(x, w) r = Relu(p) y = MatMul(r, w) }"
    model = prepared(f"network (float[N,16] x) => (float[N,16] y) {body}", w=normal(16, 16))
    result = _apply("quantize_static", model, tmp_path, {"x": normal(32, 16)}, placement="kernels")
    stored = [tensor for tensor in result.model.load().graph.initializer if list(tensor.dims) == [16, 16]]
    assert [tensor.data_type for tensor in stored] == [TensorProto.INT8]
    executed = [layer.executed for layer in result.layers if layer.operator == "MatMul"]
    assert len(executed) == 2
    assert all((name and "MatMulInteger" in name) or name == "QLinearMatMul" for name in executed)


@pytest.mark.parametrize(
    ("text", "weight", "reason"),
    [
        pytest.param("(float[N,3,9] x) => (float[N,4,k] y) { y = Conv(x, w) }", (4, 3, 3), "1 Conv", id="one-axis"),
        pytest.param(
            "(float[N,3,9,9] x) => (float[N,4,k,l] y) { y = ConvTranspose(x, w) }",
            (3, 4, 2, 2),
            "1 ConvTranspose",
            id="transposed",
        ),
        pytest.param("(float[N,8] x) => (float[N,4] y) { y = Gemm<alpha = 0.5>(x, w) }", (8, 4), "1 Gemm", id="scaled"),
    ],
)
def test_why_a_node_with_weights_has_no_int8_form_is_said(
    text: str, weight: tuple[int, ...], reason: str, tmp_path: Path
) -> None:
    model = prepared(f"network {text}", w=normal(*weight))
    shape = [4 if dim.dim_param else dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    result = _apply("quantize_static", model, tmp_path, {"x": normal(*shape)})
    assert any(note.startswith(f"In float: {reason} (") for note in result.notes), result.notes


def test_behind_the_runtime_s_own_operators_products_run_in_int8(tmp_path: Path) -> None:
    """Inference does not say what they return; their schemas do."""
    model = parse(
        "network (float[N,3,8] x) => (float[N,3,8] y) { g = com.microsoft.QuickGelu(x) m = MatMul(g, w) "
        "h = com.microsoft.BiasGelu(m, b) q = com.microsoft.FusedMatMul<transB = 1>(h, w) y = MatMul(q, w) }"
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    constants = {"w": normal(8, 8) / 3, "b": normal(8)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    result = _apply("quantize_static", model, tmp_path, {"x": normal(16, 3, 8)}, placement="kernels")
    assert [layer.planned for layer in result.layers if layer.operator == "MatMul"] == ["int8", "int8"], result.notes


SPELLED_OUT = """network (float[N,6,32] x) => (float[N,6,6] y) {
    mean = ReduceMean<axes = [-1]>(x)
    centred = Sub(x, mean)
    squared = Pow(centred, two)
    variance = ReduceMean<axes = [-1]>(squared)
    safe = Add(variance, tiny)
    deviation = Sqrt(safe)
    normal = Div(centred, deviation)
    scaled = Mul(normal, scale)
    shifted = Add(scaled, offset)
    q = MatMul(shifted, query)
    k = MatMul(shifted, key)
    turned = Transpose<perm = [0, 2, 1]>(k)
    scores = MatMul(q, turned)
    y = Softmax<axis = -1>(scores)
}"""


def test_a_norm_that_an_old_export_spells_out_is_smoothed_as_well(tmp_path: Path) -> None:
    scale = np.ones(32, np.float32)
    scale[3] = 40.0  # one channel drowns the others in 8 bits
    model = prepared(
        SPELLED_OUT,
        opset=14,
        two=np.float32(2),
        tiny=np.float32(1e-5),
        scale=scale,
        offset=np.zeros(32, np.float32),
        query=normal(32, 8) / 40,
        key=normal(32, 8, seed=1) / 40,
    )
    result = _apply("quantize_static", model, tmp_path, {"x": normal(16, 6, 32)})
    assert any("behind 1 LayerNormalizations" in note for note in result.notes), result.notes
