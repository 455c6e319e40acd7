"""Which constants are trained, by what reads them."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import ModelProto, helper, numpy_helper

from tests.worker import networks
from tests.worker.networks import holding
from worker.engine.trainable.weights import biases_and_norms, find_weights

FACE = "g (float[N,4] x) => (float[N,4] y) "
VECTOR, SQUARE = networks.normal(4), networks.normal(4, 4)
MASK = np.array([[0, -1e9, -1e9, -1e9]], np.float32)
NETWORKS = [
    pytest.param(networks.perceptron(), ["first.weight", "first.bias", "second.weight"], [], id="products-and-biases"),
    pytest.param(
        networks.attention_block(),
        ["embedding", "query.weight", "key.weight", "value.weight", "out.weight", "norm.scale", "norm.bias"],
        [],
        id="a-scalar-divisor-is-none",
    ),
    pytest.param(networks.recurrent(), ["W", "R"], [], id="lstm"),
    pytest.param(
        networks.convnet(),
        [
            "stem.weight", "stem.bias", "bn.scale", "bn.bias", "depthwise.weight", "pointwise.weight", "head.weight",
            "head.bias",
        ],
        ["bn.mean", "bn.var"],
        id="running-statistics",
    ),
    pytest.param(holding(FACE + "{ y = Add(x, mask) }", mask=MASK), [], [], id="an-additive-mask-is-none"),
    pytest.param(holding(FACE + "{ y = Mul(x, scale) }", scale=VECTOR), ["scale"], [], id="a-scale-by-channel"),
    pytest.param(holding(FACE + "{ y = Mul(x, table) }", table=SQUARE), [], [], id="a-table-of-factors-is-none"),
    pytest.param(holding(FACE + "{ t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }", w=SQUARE), ["w"], [],
                 id="transposed"),
    pytest.param(holding(FACE + "{ a = MatMul(w, v) y = MatMul(x, a) }", w=SQUARE, v=SQUARE), ["w", "v"], [],
                 id="a-product-of-weights"),
    pytest.param(
        holding(
            """g (float[N,4] x) => (float[N,4] y) {
                s = Shape(x) f = Cast<to=1>(s) a = MatMul(rates, f) c = Cos(a) y = Mul(x, c) }""",
            rates=networks.normal(4, 2),
        ),
        [],
        [],
        id="rates-of-counted-positions-are-none",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "parameters", "statistics"), NETWORKS)
def test_weights_are_what_operators_read_as_such(
    model: ModelProto, parameters: list[str], statistics: list[str]
) -> None:
    found = find_weights(ir.serde.deserialize_model(model).graph)
    assert (found.parameters, found.statistics) == (parameters, statistics)


def test_biases_and_norms_are_told_by_what_reads_them() -> None:
    both_ways = {"W": networks.normal(2, 16, 4), "R": networks.normal(2, 16, 4), "B": networks.normal(2, 32)}
    body = """{ n = LayerNormalization<axis=1>(x, scale, shift)
        l = LSTM<direction="bidirectional", hidden_size=4>(n, W, R, B, , , , P) g = Gemm(x, w, w) y = Add(l, table) }"""
    model = holding(
        "g (float[5,N,4] x) => (float[5,2,N,4] y) " + body,
        **both_ways,
        P=networks.normal(2, 12),
        scale=SQUARE,
        shift=SQUARE,
        w=SQUARE,
        table=SQUARE,
    )
    # A matrix that is added somewhere as well is one; a table of positions is told by its shape.
    assert biases_and_norms(ir.serde.deserialize_model(model).graph) == {"B", "P", "scale", "shift"}


def test_weights_may_be_constant_nodes_or_inputs_with_a_default() -> None:
    model = networks.with_initializers_as_inputs(networks.perceptron(opset=9))
    assert len(find_weights(ir.serde.deserialize_model(model).graph).parameters) == 3
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(SQUARE)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    face = {"x": (1, ["N", 4])}, {"y": (1, ["N", 4])}
    assert find_weights(ir.serde.deserialize_model(networks.assemble(nodes, *face)).graph).parameters == ["w"]
