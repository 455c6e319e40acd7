"""Which nodes have an int8 kernel as they stand, and what goes with them."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.worker import networks
from tests.worker.networks import normal, prepared
from worker.engine.int8.units import Role, Unit, clip_bounds, units_of

FILTER = normal(4, 3, 3, 3)
IMAGE = "float[2,3,8,8] x"


def _units(model: onnx.ModelProto) -> dict[str, Unit]:
    """By operator."""
    return {unit.node.op_type: unit for unit in units_of(ir.from_proto(model))}


def _roles(body: str, inputs: str = IMAGE, opset: int = networks.OPSET, **constants: np.ndarray) -> dict[str, Role]:
    model = prepared(f"network ({inputs}) => (float[a,b,c,d] y) {{ {body} }}", opset, **constants)
    return {operator: unit.role for operator, unit in _units(model).items()}


@pytest.mark.parametrize(
    ("body", "inputs", "constants"),
    [
        ("y = Conv(x, w)", IMAGE, {"w": FILTER}),
        ("y = Conv<group = 3>(x, w, b)", IMAGE, {"w": normal(3, 1, 3, 3), "b": normal(3)}),
        ("y = Conv(x, w)", "float[2,3,8] x", {"w": normal(4, 3, 3)}),
        ("y = Conv(x, w, b)", "float[2,3,8,8,8] x", {"w": normal(4, 3, 3, 3, 3), "b": normal(4)}),
        ("y = Gemm(x, w)", "float[2,8] x", {"w": normal(8, 4)}),
        ("y = Gemm<transB = 1>(x, w, b)", "float[2,8] x", {"w": normal(4, 8), "b": normal(1, 4)}),
        ("y = MatMul(x, w)", "float[2,5,8] x", {"w": normal(8, 4)}),
    ],
)
def test_products_with_constant_matrices_are_weighted(body: str, inputs: str, constants: dict[str, np.ndarray]) -> None:
    assert list(_roles(body, inputs, **constants).values()) == [Role.WEIGHTED]


@pytest.mark.parametrize(
    ("body", "inputs", "constants"),
    [
        ("y = Conv(x, w)", f"{IMAGE}, float[4,3,3,3] w", {}),
        ("y = Conv(x, w, b)", f"{IMAGE}, float[4] b", {"w": FILTER}),
        ("y = Conv(x, w)", "float[2,3,4,4,4,4] x", {"w": normal(4, 3, 1, 1, 1, 1)}),
        ("y = Conv(x, w)", "float16[2,3,8,8] x", {"w": FILTER.astype(np.float16)}),
        ("y = Conv(c, w)", IMAGE, {"c": normal(2, 3, 8, 8), "w": FILTER}),
        ("y = Gemm(c, w)", "float[2,8] x", {"c": normal(2, 8), "w": normal(8, 4)}),
        ("y = ConvTranspose(x, w)", IMAGE, {"w": normal(3, 4, 3, 3)}),
        ("y = Gemm<alpha = 0.5>(x, w)", "float[2,8] x", {"w": normal(8, 4)}),
        ("y = Gemm<beta = 0.5>(x, w, b)", "float[2,8] x", {"w": normal(8, 4), "b": normal(4)}),
        ("y = Gemm<transA = 1>(x, w)", "float[8,2] x", {"w": normal(8, 4)}),
        ("y = Gemm(x, w, b)", "float[2,8] x", {"w": normal(8, 4), "b": normal(2, 4)}),
        ("y = Gemm(x, w, b)", "float[2,8] x", {"w": normal(8, 4), "b": np.float32(1)}),
        ("y = MatMul(x, w)", "float[2,8] x", {"w": normal(3, 8, 4)}),
        ("y = MatMul(w, x)", "float[8,2] x", {"w": normal(4, 8)}),
        ("y = MatMul(x, w)", "double[2,8] x", {"w": normal(8, 4).astype(np.float64)}),
        ("y, i = MaxPool<kernel_shape = [2, 2]>(x)", IMAGE, {}),
        ("y = MaxPool<kernel_shape = [1, 1, 1, 1]>(x)", "float[2,3,4,4,4,4] x", {}),
        ('y = Resize<mode = "linear">(x, , s)', IMAGE, {"s": np.array([1, 1, 2, 2], np.float32)}),
        (
            'y = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(x, r, s)',
            IMAGE,
            {"r": np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
        ),
        ("y = Add(x, x)", "int32[2,3] x", {}),
        ("y = Mul(v, w)", IMAGE, {"v": normal(2, 3), "w": normal(2, 3)}),
        ("y = Reshape(x, s)", "int64[2,3] x", {"s": np.array([3, 2])}),
        ("y = Div(x, x)", IMAGE, {}),
        ("y, unread = Split<axis = 3>(x)", IMAGE, {}),
    ],
)
def test_what_has_no_int8_kernel_is_no_unit(body: str, inputs: str, constants: dict[str, np.ndarray]) -> None:
    assert _roles(body, inputs, **constants) == {}


@pytest.mark.parametrize(
    ("body", "constants", "role"),
    [
        ("y = MatMul(x, x)", {}, Role.PRODUCT),
        ("y = Add(x, w)", {"w": normal(8)}, Role.ARITHMETIC),
        ("y = Mul(x, x)", {}, Role.ARITHMETIC),
        ("y = Concat<axis = 1>(x, x)", {}, Role.ARITHMETIC),
        ("y = Sigmoid(x)", {}, Role.ARITHMETIC),
        ("y = GlobalAveragePool(x)", {}, Role.ARITHMETIC),
        ("y = MaxPool<kernel_shape = [2, 2]>(x)", {}, Role.CARRIER),
        ("y = Resize(x, , s)", {"s": np.array([1, 1, 2, 2], np.float32)}, Role.CARRIER),
        ("y = Reshape(x, s)", {"s": np.array([2, -1])}, Role.CARRIER),
        ("y = Transpose<perm = [0, 2, 3, 1]>(x)", {}, Role.CARRIER),
        ("a, z = Split<axis = 3>(x) y = Sub(a, z)", {}, Role.CARRIER),
    ],
)
def test_others_have_a_role_of_their_own(body: str, constants: dict[str, np.ndarray], role: Role) -> None:
    assert list(_roles(body, **constants).values()) == [role]


def test_opsets_without_8_bits_have_no_units() -> None:
    assert _roles("y = Conv(x, w)", opset=9, w=FILTER) == {}
    assert _roles("y = Conv(x, w)", opset=10, w=FILTER) == {"Conv": Role.WEIGHTED}


def test_a_constant_that_a_caller_may_override_is_none() -> None:
    model = prepared(f"network ({IMAGE}) => (float[a,b,c,d] y) {{ y = Conv(x, w) }}", w=FILTER)
    assert _units(model)
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, FILTER.shape))
    assert not _units(model)


def test_nodes_of_branches_are_no_units() -> None:
    model = networks.with_branches()
    assert {node.op_type for node in model.graph.node[0].attribute[0].g.node} <= {"Add", "Mul"}
    assert not _units(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize(
    ("behind", "constants", "absorbed"),
    [
        ("y = Relu(c)", {}, True),
        ("y = Clip(c, low, high)", {"low": np.float32(0), "high": np.float32(6)}, True),
        ("y = Clip(c, low)", {"low": np.float32(0)}, True),
        ("y = Clip(c, low, high)", {"low": np.float32(-1), "high": np.float32(1)}, False),
        ("y = Clip(c, , high)", {"high": np.float32(6)}, False),
        ("y = LeakyRelu(c)", {}, False),
        ("y = Relu(c) z = Neg(c)", {}, False),
    ],
    ids=["relu", "relu6", "from-zero", "both-signs", "to-six", "leaky", "two-readers"],
)
def test_a_clip_from_zero_belongs_to_the_node_before_it(
    behind: str, constants: dict[str, np.ndarray], absorbed: bool
) -> None:
    model = prepared(f"network ({IMAGE}) => (float[a,b,c,d] y) {{ c = Conv(x, w) {behind} }}", w=FILTER, **constants)
    unit = _units(model)["Conv"]
    assert (unit.activation is not None) == absorbed
    assert unit.output.name == ("y" if absorbed else "c")


def test_a_relu_behind_an_output_stays_apart() -> None:
    text = f"network ({IMAGE}) => (float[a,b,c,d] y, float[a,b,c,d] c) {{ c = Conv(x, w) y = Relu(c) }}"
    assert _units(prepared(text, w=FILTER))["Conv"].activation is None


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"low": np.float32(0), "high": np.float32(6)}, (0.0, 6.0)),
        ({"low": np.float32(0)}, (0.0, np.inf)),
        ({"low": np.float32(1), "high": np.float32(6)}, None),
    ],
)
def test_bounds_of_a_clip(bounds: dict[str, np.ndarray], found: tuple[float, float] | None) -> None:
    names = ", ".join(bounds)
    model = ir.from_proto(prepared(f"network ({IMAGE}) => (float[2,3,8,8] y) {{ y = Clip(x, {names}) }}", **bounds))
    assert clip_bounds(model.graph.node(0)) == found


def test_channels_are_counted_along_the_axis_that_the_operator_gives_them() -> None:
    text = (
        "network (float[2,8] x, float[2,8,3,3] v) => (float[2,4] y, float[2,5] z, float[2,6] u, float[2,7,3,3] t) "
        "{ y = Gemm(x, a) z = Gemm<transB = 1>(x, b) u = MatMul(x, c) t = Conv(v, d) }"
    )
    model = prepared(text, a=normal(8, 4), b=normal(5, 8), c=normal(8, 6), d=normal(7, 8, 1, 1))
    units = units_of(ir.from_proto(model))
    assert [(unit.channel_axis, unit.channel_count) for unit in units] == [(1, 4), (0, 5), (1, 6), (0, 7)]
    assert [unit.in_words for unit in units] == ["Gemm", "Gemm", "MatMul", "1x1 Conv"]


@pytest.mark.parametrize(
    ("kernel", "groups", "words"),
    [((3,), 1, "Conv of width 3"), ((5,), 6, "depthwise Conv of width 5"), ((3, 1, 3), 1, "3x1x3 Conv")],
)
def test_a_convolution_is_told_by_its_kernel(kernel: tuple[int, ...], groups: int, words: str) -> None:
    sizes = ",".join(["2,6", *["8"] * len(kernel)])
    weight = normal(6, 6 // groups, *kernel)
    text = f"network (float[{sizes}] x) => (float[a,b,c] y) {{ y = Conv<group = {groups}>(x, w) }}"
    assert _units(prepared(text, w=weight))["Conv"].in_words == words


def test_what_a_unit_reads_is_told_once_and_without_constants() -> None:
    text = (
        f"network ({IMAGE}, float[2,3,8,8] v) => (float[2,9,8,8] y, float[2,3,8,8] z) "
        "{ y = Concat<axis = 1>(x, v, x) z = Add(w, v) }"
    )
    units = _units(prepared(text, w=normal(8)))
    assert [value.name for value in units["Concat"].sources] == ["x", "v"]
    assert [value.name for value in units["Add"].sources] == ["v"]
    with pytest.raises(ValueError, match="no weight"):
        _ = units["Add"].weight
