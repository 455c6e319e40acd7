"""Where 8 bits begin and end: which tensors get a scale, whose scale that is, and who hands out float."""

import onnx
import pytest

from tests.worker.engine.int8.quantizing import placed
from tests.worker.networks import normal, prepared

IMAGE = "float[2,3,8,8] x"
FILTER = normal(3, 3, 3, 3)


def _model(body: str, outputs: str = "float[a,b,c,d] y", inputs: str = IMAGE) -> onnx.ModelProto:
    constants = {"w": FILTER} if "w)" in body else {}
    constants |= {"m": normal(8, 8)} if "m)" in body else {}
    return prepared(f"network ({inputs}) => ({outputs}) {{ {body} }}", **constants)


def _operators(model: onnx.ModelProto, without: frozenset[str] = frozenset()) -> list[str]:
    return [unit.node.op_type for unit in placed(model, without).in_int8]


def test_what_moves_values_runs_in_int8_behind_something_that_does() -> None:
    pool = "p = MaxPool<kernel_shape = [2, 2]>(c) t = Transpose(p) y = Neg(t)"
    assert _operators(_model(f"c = Conv(x, w) {pool}")) == ["Conv", "MaxPool", "Transpose"]
    assert _operators(_model(f"c = Tanh(x) {pool}")) == []


def test_a_unit_in_float_takes_what_moves_its_values_with_it() -> None:
    model = _model("c = Conv(x, w) p = MaxPool<kernel_shape = [2, 2]>(c) t = Transpose(p) y = Sigmoid(t)")
    assert _operators(model, frozenset({"Conv"})) == ["Sigmoid"]
    everything = placed(model)
    less = everything.without(["Conv_0"], "slow")
    assert [unit.node.op_type for unit in less.in_int8] == ["Sigmoid"]
    assert less.reasons == {"Conv_0": "slow"}
    # The one it was made from is as it was.
    assert len(everything.in_int8) == 4


def test_what_moves_values_has_the_scale_of_what_it_moves() -> None:
    model = _model("c = Conv(x, w) p = MaxPool<kernel_shape = [2, 2]>(c) t = Transpose(p) y = Sigmoid(t)")
    roots = {value.name: root.name for value, root in placed(model).roots.items()}
    assert roots == {"x": "x", "c": "c", "p": "c", "t": "c", "y": "y"}


def test_every_part_of_a_split_has_the_scale_of_the_whole() -> None:
    model = _model("c = Conv(x, w) p, q = Split<axis = 2>(c) y = Add(p, q)")
    roots = {value.name: root.name for value, root in placed(model).roots.items()}
    assert (roots["p"], roots["q"], roots["y"]) == ("c", "c", "y")


def test_an_absorbed_activation_is_what_gets_the_scale() -> None:
    model = _model("c = Conv(x, w) r = Relu(c) y = Sigmoid(r)")
    placement = placed(model)
    assert [value.name for value in placement.tensors] == ["x", "r", "y"]
    assert all(placement.reads_in_int8(node) for unit in placement.in_int8 for node in unit.nodes)


@pytest.mark.parametrize(
    ("behind", "outputs", "emits"),
    [
        ("y = Tanh(p)", "float[2,8] y", True),
        ("y = Sigmoid(p)", "float[2,8] y", False),
        ("y = Sigmoid(p) z = Tanh(p)", "float[2,8] y, float[2,8] z", False),
        ("y = Sigmoid(p)", "float[2,8] y, float[2,8] p", False),
        ("y = Identity(p)", "float[2,8] p, float[2,8] y", True),
    ],
    ids=["float-reader", "int8-reader", "both", "int8-reader-and-output", "output"],
)
@pytest.mark.parametrize("product", ["p = MatMul(x, m)", "p = Gemm(x, m)", "p = MatMul(x, v)"])
def test_products_hand_out_float_where_nobody_reads_8_bits(
    product: str, behind: str, outputs: str, emits: bool
) -> None:
    """The runtime fuses a product that somebody reads in 8 bits only where everybody does."""
    inputs = "float[2,8] x, float[8,8] v" if "v)" in product else "float[2,8] x"
    placement = placed(_model(f"{product} {behind}", outputs, inputs))
    unit = placement.in_int8[0]
    assert placement.emits_float(unit) == emits
    assert (unit.output in placement.made_in_int8) == (not emits)
    assert (unit.output in placement.tensors) == (not emits)


def test_convolutions_never_hand_out_float() -> None:
    placement = placed(_model("y = Conv(x, w)"))
    assert not placement.emits_float(placement.in_int8[0])
    assert [value.name for value in placement.tensors] == ["x", "y"]
