"""What the quantization passes leave alone, and what they say about it."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.worker import networks
from tests.worker.networks import normal, parse, prepared
from tests.worker.passes.quantizing import apply_pass, random_images
from worker.engine.int8.choosing import NO_TIME
from worker.engine.pass_contract import BudgetExhausted
from worker.engine.preparation import operator_counts
from worker.engine.sessions import open_session, run_session

FLOATS = TensorProto.FLOAT


def _one_conv(groups: int, channels: int = 8) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((channels, channels // groups, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "weight"], ["y"], "conv", group=groups, pads=[1, 1, 1, 1])
    shape: list[int | str | None] = ["N", channels, 16, 16]
    return networks.assemble([node], {"image": (FLOATS, shape)}, {"y": (FLOATS, shape)}, {"weight": weight})


def test_weights_are_signed_per_channel_and_activations_unsigned(tmp_path: Path) -> None:
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": random_images(8)})
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
    result = apply_pass("quantize_static", _one_conv(groups), tmp_path, {"image": random_images(4, channels=8)})
    assert result.modified == quantized
    assert any("grouped convolution" in note for note in result.notes) != quantized


def test_attention_products_and_softmax_stay_in_float(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, (16, 6))
    result = apply_pass("quantize_static", networks.attention_block(), tmp_path, {"tokens": tokens})
    structure = result.model.structure()
    producers = {name: node for node in structure.graph.node for name in node.output}
    scores = next(node for node in structure.graph.node if node.name == "scores")
    projected = next(node for node in structure.graph.node if node.name == "out")
    assert all(producers[name].op_type != "DequantizeLinear" for name in scores.input)
    assert all(producers[name].op_type == "DequantizeLinear" for name in projected.input)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_clipping_methods_shrink_ranges_that_outliers_stretch(method: str, tmp_path: Path) -> None:
    images = random_images(32)
    images[0, 0, 0, 0] = 500.0
    scales = {}
    for name in ("minmax", method):
        folder = tmp_path / name
        folder.mkdir()
        result = apply_pass("quantize_static", networks.convnet(), folder, {"image": images}, calibration_method=name)
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.model.load().graph.initializer}
        scales[name] = float(tensors["image_scale"])
    # One value in 24,576 set the range of 500; the others lie within 5.
    assert scales["minmax"] == pytest.approx(500 / 255, rel=0.05)
    assert scales[method] < scales["minmax"] / 5


def test_ranges_do_not_depend_on_how_much_memory_samples_share(tmp_path: Path) -> None:
    """Ranges are streamed: those of 8 samples are those of the same 8 given as two halves in another order."""
    images = random_images(8)
    found = []
    for number, order in enumerate((np.arange(8), np.arange(8)[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = apply_pass("quantize_static", networks.convnet(), folder, {"image": images[order]})
        found.append(result.model.path.read_bytes())
    assert found[0] == found[1]


def test_calibration_reads_at_most_the_samples_asked_for(tmp_path: Path) -> None:
    images = np.concatenate([random_images(4), np.full((1, 3, 16, 16), np.nan, np.float32)])
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": images}, calibration_samples=4)
    assert result.modified
    assert result.manifest["calibration_samples"] == 4


def test_nodes_that_nan_passes_through_stay_in_float(tmp_path: Path) -> None:
    images = np.full((2, 3, 16, 16), np.nan, np.float32)
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": images})
    assert any("NaN or infinity" in note for note in result.notes)


def test_excluded_nodes_stay_in_float_and_unknown_names_are_said(tmp_path: Path) -> None:
    result = apply_pass(
        "quantize_static", networks.convnet(), tmp_path, {"image": random_images(4)}, exclude=["stem", "no such node"]
    )
    structure = result.model.structure()
    producers = {name: node.op_type for node in structure.graph.node for name in node.output}
    stem = next(node for node in structure.graph.node if node.name == "stem")
    assert producers.get(stem.input[1]) != "DequantizeLinear"
    assert any("no such node" in note for note in result.notes)


def test_dynamic_quantization_takes_only_the_operators_asked_for(tmp_path: Path) -> None:
    result = apply_pass(
        "quantize_dynamic", networks.convnet(), tmp_path, {"image": random_images(2)}, operators=["LSTM"]
    )
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
    result = apply_pass("quantize_dynamic", model, tmp_path, {"x": x[None]})
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
    result = apply_pass("quantize_static", model, tmp_path, {"x": normal(8, 5, 8)}, placement="kernels")
    account = {layer.name: (layer.sqnr_db, layer.sensitivity_db) for layer in result.layers if layer.planned == "int8"}
    assert "MatMul_0" in account
    # Two or three roundings to 7 and 8 bits over ranges of their own.
    assert all(decibels is not None and decibels > 25 for both in account.values() for decibels in both)


def test_a_pass_out_of_time_says_so(tmp_path: Path) -> None:
    with pytest.raises(BudgetExhausted):
        apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": random_images(2)}, deadline=0.0)


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
def test_for_processors_without_vnni_weights_are_rounded_so_that_nothing_saturates(name: str, tmp_path: Path) -> None:
    """As where `reduce_range` is asked for, on whatever processor this runs."""
    model, arrays = networks.perceptron(), {"x": networks.normal(16, 8)}
    digests = []
    for number, options in enumerate(({"reduce_range": True}, {"instruction_set": "avx2"})):
        (tmp_path / str(number)).mkdir()
        result = apply_pass(name, model, tmp_path / str(number), arrays, placement="kernels", **options)
        assert result.modified
        digests.append(result.model.sha256())
    assert digests[0] == digests[1]


def test_without_time_to_measure_everything_is_quantized_and_that_is_said(tmp_path: Path) -> None:
    model = prepared("network (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", w=normal(8, 8))
    result = apply_pass("quantize_dynamic", model, tmp_path, {"x": normal(2, 8)}, deadline=time.monotonic() + 5)
    assert result.modified
    assert NO_TIME in result.notes


def test_the_faster_form_of_a_model_is_kept(tmp_path: Path) -> None:
    """A product long enough to be timed: what was measured stands in the manifest."""
    model = prepared("network (float[N,512] x) => (float[N,2048] y) { y = MatMul(x, w) }", w=normal(512, 2048))
    result = apply_pass("quantize_dynamic", model, tmp_path, {"x": normal(1, 256, 512)})
    assert {"float", "everything"} <= set(result.manifest["placement"]["ratios"])
    assert result.modified == (result.manifest["replay"]["in_float"] == [])
    assert [layer.name for layer in result.layers] == ["MatMul_0"]
    assert result.layers[0].float_ms


@pytest.mark.parametrize(("per_channel", "scales"), [("auto", 1), (True, 32), (False, 1)], ids=str)
def test_channels_that_share_a_scale_have_one_number(per_channel: bool | str, scales: int, tmp_path: Path) -> None:
    model = prepared("network (float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", w=normal(64, 32))
    result = apply_pass("quantize_static", model, tmp_path, {"x": normal(16, 64)}, per_channel=per_channel)
    constants = onnx.load(result.model.path).graph.initializer
    assert {numpy_helper.to_array(one).size for one in constants if one.name.endswith("w_scale")} == {scales}


def test_a_weight_that_two_products_read_is_stored_once(tmp_path: Path) -> None:
    body = "{ p = MatMul(x, w) r = Relu(p) y = MatMul(r, w) }"
    model = prepared(f"network (float[N,16] x) => (float[N,16] y) {body}", w=normal(16, 16))
    result = apply_pass("quantize_static", model, tmp_path, {"x": normal(32, 16)}, placement="kernels")
    stored = [tensor for tensor in result.model.load().graph.initializer if list(tensor.dims) == [16, 16]]
    assert [tensor.data_type for tensor in stored] == [TensorProto.INT8]
    executed = [layer.executed for layer in result.layers if layer.operator == "MatMul"]
    assert len(executed) == 2
    assert all((name and "MatMulInteger" in name) or name == "QLinearMatMul" for name in executed)


@pytest.mark.parametrize(
    ("text", "weight", "reason"),
    [
        pytest.param(
            "(float[N,3,9] x) => (float[N,3,k] y) { b = ReduceMean<axes = [0, 2], keepdims = 0>(x) y = Conv(x, w, b) }",
            (3, 3, 3),
            "1 Conv",
            id="computed-bias",
        ),
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
    result = apply_pass("quantize_static", model, tmp_path, {"x": normal(*shape)})
    assert any(note.startswith(f"In float: {reason} (") for note in result.notes), result.notes


@pytest.mark.parametrize("space", [(24,), (6, 7, 8)], ids=["one-axis", "three-axes"])
def test_convolutions_over_one_axis_or_three_run_in_int8(space: tuple[int, ...], tmp_path: Path) -> None:
    """With everything that may be done about weights: all of it has to read them whatever their axes."""
    axes = len(space)
    ends, sizes = [1] * (2 * axes), ",".join(map(str, space))
    model = prepared(
        f"network (float[N,6,{sizes}] x) => (float[N,5] y) {{ a = Conv<pads = {ends}>(x, w, b) r = Relu(a) "
        f"c = Conv<group = 8, pads = {ends}>(r, d) s = Relu(c) p = MaxPool<kernel_shape = {[2] * axes}>(s) "
        "e = Conv(p, v) g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, h) }",
        w=normal(8, 6, *[3] * axes),
        b=normal(8),
        d=normal(8, 1, *[3] * axes, seed=1),
        v=normal(8, 8, *[1] * axes, seed=2),
        h=normal(8, 5, seed=3),
    )
    x = normal(8, 6, *space, seed=4)
    asked = {"placement": "kernels", "equalization": True, "rounding": "gptq", "reduce_range": True}
    result = apply_pass("quantize_static", model, tmp_path, {"x": x}, **asked)
    assert [layer.executed for layer in result.layers if layer.operator == "Conv"] == ["QLinearConv"] * 3
    assert any("nodes planned as int8 run as int8." in note for note in result.notes), result.notes
    files = networks.save(model, tmp_path / "original"), result.model.path
    before, after = (run_session(open_session(file, 1), {"x": x})[0] for file in files)
    assert 10 * np.log10(np.square(before).sum() / np.square(before - after).sum()) > 25


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
def test_a_node_without_an_int8_kernel_is_accounted_for_where_nothing_is_quantized(name: str, tmp_path: Path) -> None:
    text = "network (float[5,N,8] x) => (float[5,1,N,6] y) { y = GRU<hidden_size = 6>(x, w, r) }"
    model = prepared(text, w=normal(1, 18, 8), r=normal(1, 18, 6))
    result = apply_pass(name, model, tmp_path, {"x": normal(1, 5, 2, 8)}, without_int8="original")
    reason = "it has no int8 kernel"
    assert [(one.name, one.planned, one.reason, one.executed) for one in result.layers] == [
        ("GRU_0", "float", reason, "GRU")
    ]
    assert f"In float: 1 GRU ({reason})." in result.notes


def test_behind_the_runtime_s_own_operators_products_run_in_int8(tmp_path: Path) -> None:
    """Inference does not say what they return; their schemas do."""
    model = parse(
        "network (float[N,3,8] x) => (float[N,3,8] y) { g = com.microsoft.QuickGelu(x) m = MatMul(g, w) "
        "h = com.microsoft.BiasGelu(m, b) q = com.microsoft.FusedMatMul<transB = 1>(h, w) y = MatMul(q, w) }"
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    constants = {"w": normal(8, 8) / 3, "b": normal(8)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    result = apply_pass("quantize_static", model, tmp_path, {"x": normal(16, 3, 8)}, placement="kernels")
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
    result = apply_pass("quantize_static", model, tmp_path, {"x": normal(16, 6, 32)})
    assert any("behind 1 LayerNormalizations" in note for note in result.notes), result.notes
