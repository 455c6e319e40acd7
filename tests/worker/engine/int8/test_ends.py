"""Which nodes are first and last, whatever order the file has them in."""

import onnx_ir as ir
import pytest

from tests.worker.networks import normal, prepared
from worker.engine.int8.ends import ends_of

FACE = "network (float[N,4] x) => (float[N,4] y) "
SQUARE = {name: normal(4, 4, seed=seed) for seed, name in enumerate("uvw")}
RESIDUAL = (
    "{ a = Relu(x) b = MatMul(a, u) c = Add(x, b) d = MatMul(c, v) e = Add(c, d) f = MatMul(e, w) y = Add(e, f) }"
)
CASES = [
    pytest.param(
        FACE + "{ a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Relu(c) e = MatMul(d, w) y = Softmax(e) }",
        {"MatMul_0", "MatMul_4"},
        id="a-chain",
    ),
    pytest.param(
        "network (float[N,4] x, float[N,4] z) => (float[N,4] y, float[N,4] s) { a = MatMul(x, u) b = MatMul(z, u) "
        "c = Add(a, b) d = MatMul(c, v) y = MatMul(d, w) s = MatMul(d, u) }",
        {"MatMul_0", "MatMul_1", "MatMul_4", "MatMul_5"},
        id="two-inputs-and-two-outputs",
    ),
    pytest.param(FACE + RESIDUAL, {"MatMul_1", "MatMul_5"}, id="a-residual-sum-that-begins-at-the-input"),
    pytest.param(
        "network (int64[N] i) => (float[N,4] y) { x = Gather(w, i) a = MatMul(x, u) b = Relu(a) y = MatMul(b, v) }",
        {"Gather_0", "MatMul_3"},
        id="an-embedding-comes-first",
    ),
    pytest.param(
        FACE + "{ a = MatMul(x, u) b = Mul(a, g) c = MatMul(b, v) d = MatMul(c, w) y = Add(d, g) }",
        {"MatMul_0", "MatMul_3"},
        id="a-scale-and-a-shift-are-no-weights",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_ends_have_no_weights_beyond_them(text: str, wanted: set[str]) -> None:
    model = ir.serde.deserialize_model(prepared(text, **SQUARE, g=normal(4)))
    assert ends_of(model.graph) == wanted
