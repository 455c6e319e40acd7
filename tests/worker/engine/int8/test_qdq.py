"""A placement as a file: ONNX Runtime finds every planned unit and runs it in int8, and the model keeps its face."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.engine.int8.quantizing import quantized
from tests.worker.networks import OPSET, normal, prepared
from worker.engine.affine import unsigned
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import MissingRange, write_placement
from worker.engine.int8.units import units_of
from worker.engine.int8.weights import Codes

# Two or three roundings to 7 and 8 bits, each over its own range, of a few thousand normal values.
FLOOR_DB = 25.0
IMAGES = normal(4, 8, 10, 10, seed=9)
ROWS = normal(16, 8, seed=9)
FILTER, BIAS = normal(8, 8, 3, 3) / 8, normal(8)
MATRIX = normal(8, 8) / 3
CONVOLUTION = "c = Conv<pads = [1, 1, 1, 1]>(x, w, b)"


def _images(
    body: str, outputs: str = "float[N,k,h,v] y", opset: int = OPSET, **constants: np.ndarray
) -> onnx.ModelProto:
    given = {"w": FILTER, "b": BIAS} if "(x, w, b)" in body else {}
    return prepared(f"network (float[N,8,10,10] x) => ({outputs}) {{ {body} }}", opset, **given, **constants)


def _rows(body: str, outputs: str = "float[N,8] y", **constants: np.ndarray) -> onnx.ModelProto:
    return prepared(f"network (float[N,8] x) => ({outputs}) {{ {body} }}", m=MATRIX, **constants)


@pytest.mark.parametrize(
    ("body", "operator", "constants"),
    [
        ("y = Conv(x, w)", "QLinearConv", {"w": FILTER}),
        ("y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w, b)", "QLinearConv", {}),
        ("y = Conv<group = 8>(x, w)", "QLinearConv", {"w": normal(8, 1, 3, 3)}),
        ("y = Conv<group = 2, dilations = [2, 2]>(x, w)", "QLinearConv", {"w": normal(4, 4, 3, 3)}),
        ('y = Conv<auto_pad = "SAME_UPPER">(x, w)', "QLinearConv", {"w": FILTER}),
        ("y = Add(x, a)", "QLinearAdd", {"a": normal(8, 1, 1)}),
        ("y = Add(a, x)", "QLinearAdd", {"a": normal(8, 1, 1)}),
        ("y = Add(x, x)", "QLinearAdd", {}),
        ("y = Mul(x, a)", "QLinearMul", {"a": np.float32(3)}),
        ("y = Concat<axis = 0>(x, a, x)", "QLinearConcat", {"a": normal(2, 8, 10, 10)}),
        ("y = Sigmoid(x)", "QLinearSigmoid", {}),
        ("y = LeakyRelu(x)", "QLinearLeakyRelu", {}),
        ("y = GlobalAveragePool(x)", "QLinearGlobalAveragePool", {}),
        ("y = AveragePool<kernel_shape = [3, 3]>(x)", "QLinearAveragePool", {}),
        ("y = Softmax<axis = -1>(x)", "QLinearSoftmax", {}),
    ],
)
def test_every_unit_over_images_fuses(
    body: str, operator: str, constants: dict[str, np.ndarray], context: SamplesContext
) -> None:
    model = _images(body, **constants)
    found = quantized(model, context(model, x=IMAGES))
    assert len(found.placement.in_int8) == 1
    assert found.ran[operator] == 1
    assert set(found.ran) <= {operator, "QuantizeLinear", "DequantizeLinear", "Transpose"}
    assert found.sqnr_db() > FLOOR_DB


@pytest.mark.parametrize("space", [(20,), (8, 7, 9)], ids=["one-axis", "three-axes"])
@pytest.mark.parametrize(
    ("attributes", "channels"),
    [("", 8), ("strides = {two}, pads = {ends}, ", 8), ("group = 8, dilations = {two}, ", 1)],
    ids=["whole", "strided", "depthwise"],
)
def test_convolutions_over_other_axes_fuse_too(
    attributes: str, channels: int, space: tuple[int, ...], context: SamplesContext
) -> None:
    axes = len(space)
    kernel, two, ends = [3] * axes, [2] * axes, [1] * (2 * axes)
    first = f"Conv<{attributes.format(two=two, ends=ends)}kernel_shape = {kernel}>(x, w, b)"
    sizes, outer = ",".join(map(str, space)), ",".join("hvd"[:axes])
    model = prepared(
        f"network (float[N,8,{sizes}] x) => (float[N,k,{outer}] y) "
        f"{{ c = {first} r = Relu(c) p = MaxPool<kernel_shape = {two}>(r) y = Conv(p, v) }}",
        w=normal(8, channels, *kernel) / 8,
        b=BIAS,
        v=normal(8, 8, *[1] * axes) / 8,
    )
    found = quantized(model, context(model, x=normal(4, 8, *space, seed=9)))
    assert (found.ran["QLinearConv"], found.ran["Conv"], found.ran["FusedConv"]) == (2, 0, 0)
    assert (found.ran["QuantizeLinear"], found.ran["DequantizeLinear"]) == (1, 1)
    assert found.sqnr_db() > FLOOR_DB


@pytest.mark.parametrize(
    ("body", "operator", "constants"),
    [
        ("y = MatMul(x, m)", "MatMulIntegerToFloat", {}),
        ("y = MatMul(x, x_t)", "MatMulIntegerToFloat", {}),
        ("y = Gemm(x, m)", "QGemm", {}),
        ("y = Gemm<transB = 1>(x, m, b)", "QGemm", {"b": normal(8)}),
        ("y = Gemm(x, m, b)", "QGemm", {"b": normal(1, 8)}),
    ],
)
def test_products_fuse_and_hand_out_float(
    body: str, operator: str, constants: dict[str, np.ndarray], context: SamplesContext
) -> None:
    before = "x_t = Transpose(x) " if "x_t" in body else ""
    model = _rows(before + body, "float[a,b] y", **constants)
    found = quantized(model, context(model, x=ROWS))
    assert found.ran[operator] == 1
    assert found.ran["DequantizeLinear"] == 0
    # 10 dB more than where the output is rounded as well.
    assert found.sqnr_db() > FLOOR_DB


@pytest.mark.parametrize(
    ("behind", "outputs"),
    [
        ("y = Sigmoid(p) z = Tanh(p)", "float[N,8] y, float[N,8] z"),
        ("y = Sigmoid(p)", "float[N,8] y, float[N,8] p"),
    ],
    ids=["another-reads-float", "it-is-an-output"],
)
@pytest.mark.parametrize(("product", "operator"), [("MatMul", "QLinearMatMul"), ("Gemm", "QGemm")])
def test_products_that_some_read_in_8_bits_fuse_too(
    product: str, operator: str, behind: str, outputs: str, context: SamplesContext
) -> None:
    model = _rows(f"p = {product}(x, m) {behind}", outputs)
    found = quantized(model, context(model, x=ROWS))
    assert (found.ran[operator], found.ran["QLinearSigmoid"]) == (1, 1)
    assert found.ran[product] == 0
    assert min(found.sqnr_db(name) for name in found.before) > FLOOR_DB


@pytest.mark.parametrize(
    ("behind", "outputs"),
    [
        ("y = Tanh(r)", "float[N,8] y"),
        ("y = Tanh(r) z = Neg(r)", "float[N,8] y, float[N,8] z"),
        ("y = Tanh(r)", "float[N,8] y, float[N,8] r"),
        ("y = Identity(r)", "float[N,8] y"),
    ],
    ids=["one-reads-float", "two-read-float", "reader-and-output", "output"],
)
@pytest.mark.parametrize("activation", ["Relu(p)", "Clip(p, low, high)"], ids=["relu", "clip"])
@pytest.mark.parametrize(
    ("product", "operators"),
    [("MatMul", ("QLinearMatMul", "MatMulIntegerToFloat")), ("Gemm", ("QGemm",))],
    ids=["matmul", "gemm"],
)
def test_products_with_an_activation_that_float_reads_run_in_int8(
    product: str, operators: tuple[str, ...], activation: str, behind: str, outputs: str, context: SamplesContext
) -> None:
    model = _rows(f"p = {product}(x, m) r = {activation} {behind}", outputs, low=np.float32(0), high=np.float32(6))
    found = quantized(model, context(model, x=ROWS))
    assert sum(found.ran[operator] for operator in operators) == 1
    assert not {product, f"Fused{product}"} & found.ran.keys()
    assert min(found.sqnr_db(name) for name in found.before) > FLOOR_DB


def test_a_product_whose_activation_is_a_result_hands_it_out_in_float(context: SamplesContext) -> None:
    model = _rows("p = Gemm(x, m) y = Relu(p)")
    found = quantized(model, context(model, x=ROWS))
    assert found.ran == {"QuantizeLinear": 1, "QGemm": 1, "Relu": 1}


@pytest.mark.parametrize(
    "between",
    [
        "p = MaxPool<kernel_shape = [2, 2]>(c)",
        "p = Reshape(c, s)",
        "p = Transpose<perm = [0, 1, 3, 2]>(c)",
        "u = Unsqueeze(c, z) p = Squeeze(u, z)",
        "p = Slice(c, one, s2, two)",
        "r, q = Split<axis = 1, num_outputs = 2>(c) p = Concat<axis = 1>(q, r)",
        'p = Resize<mode = "nearest">(c, , scales)',
    ],
)
def test_what_moves_values_moves_8_bits(between: str, context: SamplesContext) -> None:
    """One conversion before, one behind, and no float between."""
    constants = {
        "s": np.array([0, 0, 5, 20]),
        "z": np.array([2]),
        "one": np.array([1]),
        "s2": np.array([9]),
        "two": np.array([2]),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    model = _images(f"{CONVOLUTION} {between} y = Sigmoid(p)", opset=18, **constants)
    found = quantized(model, context(model, x=IMAGES))
    assert (found.ran["QuantizeLinear"], found.ran["DequantizeLinear"]) == (1, 1)
    assert (found.ran["QLinearConv"], found.ran["QLinearSigmoid"]) == (1, 1)
    assert found.sqnr_db() > FLOOR_DB


def test_what_is_made_up_outside_of_a_region_is_not_cut_to_the_range_inside(context: SamplesContext) -> None:
    region = np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32)
    crop = 'Resize<mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 50.0>'
    model = _images(f"{CONVOLUTION} p = {crop}(c, r, s) y = Mul(p, p)", r=region, s=np.array([1, 1, 2, 2], np.float32))
    found = quantized(model, context(model, x=IMAGES))
    assert found.before["y"].max() == 2500
    assert found.sqnr_db() > FLOOR_DB


def test_what_moves_values_shares_the_scale_of_what_it_moves(context: SamplesContext) -> None:
    model = _images(f"{CONVOLUTION} p = MaxPool<kernel_shape = [2, 2]>(c) y = Transpose(p)")
    found = quantized(model, context(model, x=IMAGES))
    made = [node for node in found.model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {node.input[0]: node.input[1] for node in made if node.input[0] in ("c", "p", "y_unquantized")}
    assert scales == {"c": "c_scale", "p": "c_scale", "y_unquantized": "c_scale"}


@pytest.mark.parametrize(
    ("activation", "constants", "low", "high"),
    [
        ("y = Relu(c)", {}, 0.0, np.inf),
        ("y = Clip(c, zero, six)", {"zero": np.float32(0), "six": np.float32(0.7)}, 0.0, 0.7),
    ],
    ids=["relu", "clip"],
)
def test_a_clip_from_zero_becomes_the_integers_own(
    activation: str, constants: dict[str, np.ndarray], low: float, high: float, context: SamplesContext
) -> None:
    model = _images(f"{CONVOLUTION} {activation}", **constants)
    found = quantized(model, context(model, x=IMAGES))
    assert set(found.ran) <= {"QLinearConv", "QuantizeLinear", "DequantizeLinear", "Transpose"}
    assert low <= found.after["y"].min() <= found.after["y"].max() <= np.float32(high)
    assert found.sqnr_db() > FLOOR_DB


def test_outputs_keep_their_names_and_their_readers(context: SamplesContext) -> None:
    model = _images(f"{CONVOLUTION} y = Sigmoid(c) z = Neg(c)", "float[N,k,h,v] y, float[N,k,h,v] c, float[N,k,h,v] z")
    found = quantized(model, context(model, x=IMAGES))
    assert [value.name for value in found.model.graph.output] == ["y", "c", "z"]
    assert {name: array.shape for name, array in found.after.items()} == {
        name: array.shape for name, array in found.before.items()
    }
    assert found.node("c").op_type == "DequantizeLinear"
    assert min(found.sqnr_db(name) for name in ("y", "c", "z")) > FLOOR_DB


def test_readers_in_float_of_what_float_makes_read_float(context: SamplesContext) -> None:
    model = _images("t = Tanh(x) y = Sigmoid(t) z = Neg(t)", "float[N,8,10,10] y, float[N,8,10,10] z")
    found = quantized(model, context(model, x=IMAGES))
    assert list(found.node("z").input) == ["t"]
    np.testing.assert_array_equal(found.after["z"], found.before["z"])


def test_biases_are_32_bits_at_the_scale_that_the_kernel_sums_in(context: SamplesContext) -> None:
    model = _images("y = Conv(x, w, b)")
    found = quantized(model, context(model, x=IMAGES))
    weight, bias = (found.node(name) for name in found.node("y_unquantized").input[1:])
    codes, scale = found.constant(bias.input[0]), found.constant(bias.input[1])
    assert (codes.dtype, scale.shape) == (np.int32, (8,))
    np.testing.assert_allclose(scale, found.constant("x_scale") * found.constant(weight.input[1]), rtol=1e-6)
    assert (np.abs(codes * scale.astype(np.float64) - BIAS) <= scale / 2 * 1.0001).all()


@pytest.mark.parametrize("opset", [10, 12, 28])
def test_opsets_whose_operators_the_runtime_lacks_get_its_own(opset: int, context: SamplesContext) -> None:
    """QuantizeLinear has no axis before opset 13, and ONNX Runtime 1.32 has none of opset 28."""
    model = _images(f"{CONVOLUTION} y = Sigmoid(c)", opset=opset)
    found = quantized(model, context(model, x=IMAGES))
    assert {node.domain for node in found.model.graph.node if "Linear" in node.op_type} == {"com.microsoft"}
    assert (found.ran["QLinearConv"], found.ran["QLinearSigmoid"]) == (1, 1)
    assert found.sqnr_db() > FLOOR_DB


@pytest.mark.parametrize(
    "taken", ["x_scale", "x_zero_point", "x_quantized", "x_dequantized", "y_unquantized", "Conv_1/w_scale"]
)
def test_names_that_the_model_has_already_are_not_used_again(taken: str, context: SamplesContext) -> None:
    model = _images("other = Tanh(x) y = Conv(x, w, b) z = Neg(other)", "float[N,k,h,v] y, float[N,k,h,v] z")
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [taken if name == "other" else name for name in names]
    found = quantized(model, context(model, x=IMAGES))
    assert found.ran["QLinearConv"] == 1
    np.testing.assert_array_equal(found.after["z"], found.before["z"])


def test_given_biases_replace_those_of_the_model() -> None:
    model = _rows("p = MatMul(x, m) a = Add(p, b) y = Gemm(a, m, c)", b=normal(8), c=normal(8, seed=1))
    graph = ir.from_proto(model)
    units = units_of(graph)
    placement = Placement.of(units, ["MatMul_0", "Gemm_2"])
    maps = {name: unsigned(-4.0, 4.0) for name in ("x", "a")}
    codes = {
        unit.name: Codes(np.ones((8, 8), np.int8), np.full(8, 0.5, np.float32), unit.channel_axis)
        for unit in placement.in_int8
    }
    given = {"MatMul_0": np.arange(8, dtype=np.float32), "Gemm_2": np.full(8, -3.0, np.float32)}
    write_placement(graph, placement, maps, codes, given)
    made = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in ir.to_proto(graph).graph.initializer}
    np.testing.assert_array_equal(made["MatMul_0/bias"], given["MatMul_0"])
    bias = made["Gemm_2/bias_quantized"] * made["Gemm_2/bias_scale"].astype(np.float64)
    np.testing.assert_allclose(bias, -3.0, atol=0.02)


def test_a_tensor_without_a_range_is_said() -> None:
    graph = ir.from_proto(_images("y = Sigmoid(x)"))
    placement = Placement.of(units_of(graph), ["Sigmoid_0"])
    with pytest.raises(MissingRange, match="x"):
        write_placement(graph, placement, {}, {})
