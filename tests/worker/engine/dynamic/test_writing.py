"""Every dynamic form runs in ONNX Runtime and answers as the float model did; what has none is left with its reason."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from tests.worker.networks import normal, prepared
from worker.engine.dynamic.forms import (
    BATCH_FIRST,
    CONVOLUTION,
    NO_ACTIVATION,
    NO_KERNEL,
    NO_MATRIX,
    NO_ROW,
    NOT_FINITE,
    OLD,
    OTHER_ATTENTION,
    STANDARD_ATTENTION,
    TRANSPOSED,
)
from worker.engine.dynamic.placement import everything_dynamic
from worker.engine.dynamic.writing import dynamic_builder
from worker.engine.graph_file import read_graph
from worker.engine.int8.rounding import Rounding
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session

OPERATORS = ("MatMul", "Gemm", "LSTM", "Attention", "Conv")
# Weights keep 40 dB by channel, activations 38, together 36; few elements may cost ten of them.
FLOOR_DB = 24.0
WIDTH, HIDDEN = 16, 8
FLOATS, INTEGERS = TensorProto.FLOAT, TensorProto.INT32


@dataclass(frozen=True)
class Written:
    """`operators` counts those of the file; `sqnr_db` is that of the worst output."""

    model: onnx.ModelProto
    operators: Counter[str]
    sqnr_db: float


def _write(model: onnx.ModelProto, feed: dict[str, np.ndarray], folder: Path, per_channel: bool = True) -> Written:
    file = ModelFile(networks.save(model, folder / "model"))
    everything = everything_dynamic(read_graph(file), OPERATORS, [])
    made = dynamic_builder(file, Rounding(unsaturated=True, per_channel=per_channel))(everything, folder / "made")
    onnx.checker.check_model(str(made.path))
    answers = [run_session(open_session(one.path, 1), feed) for one in (file, made)]
    ratios = []
    for exact, found in zip(*answers, strict=True):
        noise = np.square(exact.astype(np.float64) - found).sum()
        ratios.append(10 * np.log10(np.square(exact.astype(np.float64)).sum() / noise))
    loaded = made.load()
    return Written(loaded, Counter(node.op_type for node in loaded.graph.node), min(ratios))


def _lstm(directions: int, outputs: list[str], peepholes: bool) -> onnx.ModelProto:
    """`x` (5, N, WIDTH) with every input that an LSTM may have; `hidden_size` is left to be inferred."""
    weights = {
        "W": normal(directions, 4 * HIDDEN, WIDTH, seed=1) / 4,
        "R": normal(directions, 4 * HIDDEN, HIDDEN, seed=2) / 4,
        "B": normal(directions, 8 * HIDDEN, seed=3) / 4,
        "h": normal(directions, 2, HIDDEN, seed=4),
        "c": normal(directions, 2, HIDDEN, seed=5),
        "P": normal(directions, 3 * HIDDEN, seed=6) / 4,
    }
    names = ["x", "W", "R", "B", "", "h", "c", *(["P"] if peepholes else [])]
    direction = "bidirectional" if directions > 1 else "forward"
    node = helper.make_node("LSTM", names, outputs, "cell", hidden_size=HIDDEN, direction=direction)
    ranks = {"y": 4, "h_n": 3, "c_n": 3}
    made: dict[str, tuple[int, list[int | str | None] | None]] = {
        name: (FLOATS, [None] * ranks[name]) for name in outputs if name
    }
    return networks.assemble([node], {"x": (FLOATS, [5, 2, WIDTH])}, made, weights)


def _attention(bias: bool, mask: bool, **attributes: int | list[int]) -> onnx.ModelProto:
    """`x` (N, 5, WIDTH), and `m` (N, 5) where masked: the runtime's own Attention, of two heads."""
    inputs: dict[str, tuple[int, list[int | str | None] | None]] = {"x": (FLOATS, ["N", 5, WIDTH])}
    if mask:
        inputs["m"] = (INTEGERS, ["N", 5])
    weights = {"w": normal(WIDTH, 3 * WIDTH, seed=1) / 4, **({"b": normal(3 * WIDTH, seed=2)} if bias else {})}
    names = ["x", "w", "b" if bias else "", "m" if mask else ""]
    node = helper.make_node("Attention", names, ["y"], "att", domain="com.microsoft", num_heads=2, **attributes)
    domains = {"com.microsoft": 1}
    return networks.assemble([node], inputs, {"y": (FLOATS, ["N", 5, WIDTH])}, weights, domains=domains)


@dataclass(frozen=True)
class Form:
    """A model of one node, or of a node and its bias, and the operators that it becomes."""

    model: onnx.ModelProto
    shape: tuple[int, ...]
    becomes: list[str]
    feed: dict[str, np.ndarray] = field(default_factory=dict)


MATRIX, ROW = normal(WIDTH, HIDDEN, seed=1), normal(HIDDEN, seed=2)
MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], np.int32)
PRODUCT, ATTENTION = ["DynamicQuantizeMatMul"], ["DynamicQuantizeLinear", "QAttention"]
GEMM = f"network (float[N,{WIDTH}] x) => (float[N,{HIDDEN}] y) {{ y = Gemm"
STACKED = f"network (float[N,5,{WIDTH}] x) => (float[N,5,{HIDDEN}] y) {{"
FORMS = {
    "product": Form(prepared(f"{STACKED} y = MatMul(x, w) }}", w=MATRIX), (2, 5, WIDTH), PRODUCT),
    "product-and-bias": Form(
        prepared(f"{STACKED} p = MatMul(x, w) y = Add(b, p) }}", w=MATRIX, b=ROW), (2, 5, WIDTH), PRODUCT
    ),
    "bias-of-another-shape": Form(
        prepared(f"{STACKED} p = MatMul(x, w) y = Add(p, b) }}", w=MATRIX, b=normal(5, 1)),
        (2, 5, WIDTH),
        [*PRODUCT, "Add"],
    ),
    "gemm": Form(prepared(f"{GEMM}(x, w, b) }}", w=MATRIX, b=ROW), (6, WIDTH), PRODUCT),
    "gemm-with-factors": Form(
        prepared(f"{GEMM}<alpha = 0.5, beta = 2.0, transB = 1>(x, w, b) }}", w=MATRIX.T, b=ROW[None]),
        (6, WIDTH),
        PRODUCT,
    ),
    "gemm-with-a-scalar": Form(prepared(f"{GEMM}(x, w, b) }}", w=MATRIX, b=np.float32(3)), (6, WIDTH), PRODUCT),
    "gemm-without-bias": Form(prepared(f"{GEMM}(x, w) }}", w=MATRIX), (6, WIDTH), PRODUCT),
    "lstm": Form(_lstm(1, ["y"], peepholes=False), (5, 2, WIDTH), ["DynamicQuantizeLSTM"]),
    "lstm-of-two-directions": Form(_lstm(2, ["y", "h_n", "c_n"], True), (5, 2, WIDTH), ["DynamicQuantizeLSTM"]),
    "last-state-of-an-lstm": Form(_lstm(1, ["", "h_n"], False), (5, 2, WIDTH), ["DynamicQuantizeLSTM"]),
    "attention": Form(_attention(True, False), (2, 5, WIDTH), ATTENTION),
    "masked-attention-without-bias": Form(_attention(False, True), (2, 5, WIDTH), ATTENTION, {"m": MASK}),
}


@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_answers_as_the_float_node_did(form: Form, per_channel: bool, tmp_path: Path) -> None:
    made = _write(form.model, {"x": normal(*form.shape), **form.feed}, tmp_path, per_channel)
    assert made.operators == Counter(form.becomes)
    assert made.sqnr_db > FLOOR_DB


def test_products_of_one_tensor_quantize_it_once_and_share_what_they_share(tmp_path: Path) -> None:
    text = (
        f"network (float[N,{WIDTH}] x) => (float[N,{HIDDEN}] a, float[N,{HIDDEN}] b, float[N,{HIDDEN}] c) "
        "{ a = MatMul(x, w) b = MatMul(x, w) p = MatMul(x, v) c = Add(p, r) }"
    )
    made = _write(prepared(text, w=MATRIX, v=normal(WIDTH, HIDDEN, seed=9), r=ROW), {"x": normal(6, WIDTH)}, tmp_path)
    assert made.operators == Counter({"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3})
    assert sum(tensor.data_type == TensorProto.INT8 for tensor in made.model.graph.initializer) == 2
    assert made.sqnr_db > FLOOR_DB


SQUARE, OTHER = normal(WIDTH, WIDTH, seed=3) / 4, normal(WIDTH, HIDDEN, seed=4)
WIDE = f"network (float[N,{WIDTH}] x) => (float[N,{HIDDEN}] y) {{"


@pytest.mark.parametrize(
    ("model", "operators"),
    [
        pytest.param(
            prepared(f"{WIDE} a = MatMul(x, v) y = MatMul(a, w) }}", v=SQUARE, w=OTHER),
            {"DynamicQuantizeMatMul": 2},
            id="products",
        ),
        pytest.param(
            prepared(f"{WIDE} a = MatMul(x, v) h = Add(a, b) y = MatMul(h, w) }}", v=SQUARE, w=OTHER, b=normal(WIDTH)),
            {"DynamicQuantizeMatMul": 2},
            id="behind a bias",
        ),
        pytest.param(
            prepared(f"{WIDE} a = Gemm(x, v) y = Gemm(a, w) }}", v=SQUARE, w=OTHER),
            {"DynamicQuantizeMatMul": 2},
            id="gemms",
        ),
        pytest.param(
            prepared(
                f"{WIDE} a = MatMul(x, v) l = MatMul(a, u) r = MatMul(a, w) y = Add(l, r) }}",
                v=SQUARE,
                u=MATRIX,
                w=OTHER,
            ),
            {"DynamicQuantizeMatMul": 1, "DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2, "Add": 1},
            id="two behind one",
        ),
    ],
)
def test_a_product_may_read_what_another_makes(
    model: onnx.ModelProto, operators: dict[str, int], tmp_path: Path
) -> None:
    made = _write(model, {"x": normal(6, WIDTH)}, tmp_path)
    assert made.operators == Counter(operators)
    assert made.sqnr_db > FLOOR_DB


def test_a_product_keeps_the_name_of_its_node(tmp_path: Path) -> None:
    model = prepared(f"{STACKED} p = MatMul(x, w) y = Add(p, b) }}", w=MATRIX, b=ROW)
    made = _write(model, {"x": normal(2, 5, WIDTH)}, tmp_path)
    assert [node.name for node in made.model.graph.node] == ["MatMul_0"]


BROKEN = MATRIX.copy()
BROKEN[0, 0] = np.nan
LEFT = {
    "activations": (prepared(f"{STACKED} t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, t) }}"), NO_MATRIX),
    "stack": (prepared(f"{STACKED} y = MatMul(x, w) }}", w=normal(2, WIDTH, HIDDEN)), NO_MATRIX),
    "vector": (prepared(f"{STACKED} y = MatMul(x, w) }}", w=normal(WIDTH)), NO_MATRIX),
    "nan": (prepared(f"{STACKED} y = MatMul(x, w) }}", w=BROKEN), NOT_FINITE),
    "transposed": (prepared(f"{GEMM}<transA = 1>(x, w) }}", w=MATRIX), TRANSPOSED),
    "matrix-added": (prepared(f"{GEMM}(x, w, b) }}", w=MATRIX, b=normal(6, HIDDEN)), NO_ROW),
    "column-added": (prepared(f"{GEMM}(x, w, b) }}", w=MATRIX, b=normal(6, 1)), NO_ROW),
    "constants-alone": (prepared(f"{STACKED} y = MatMul(v, w) }}", v=normal(2, 5, WIDTH), w=MATRIX), NO_ACTIVATION),
    "old": (prepared(f"{STACKED} y = MatMul(x, w) }}", 10, w=MATRIX), OLD),
    "convolution": (
        prepared("network (float[N,4,8] x) => (float[N,k,8] y) { y = Conv(x, w) }", w=normal(2, 4, 1)),
        CONVOLUTION,
    ),
    "transposed-convolution": (
        prepared("network (float[N,4,8] x) => (float[N,k,8] y) { y = ConvTranspose(x, w) }", w=normal(4, 2, 1)),
        NO_KERNEL,
    ),
    "batch-first": (
        prepared(
            f"network (float[N,5,{WIDTH}] x) => (float[N,5,1,2] y) "
            "{ y = LSTM<hidden_size = 2, layout = 1>(x, w, r) }",
            w=normal(1, 8, WIDTH),
            r=normal(1, 8, 2),
        ),
        BATCH_FIRST,
    ),
    "standard-attention": (prepared(f"{STACKED} y = Attention(x, x, x) }}", 23), STANDARD_ATTENTION),
    "heads-of-other-sizes": (_attention(True, False, qkv_hidden_sizes=[WIDTH] * 3), OTHER_ATTENTION),
}


@pytest.mark.parametrize(("model", "reason"), LEFT.values(), ids=LEFT)
def test_what_has_no_form_is_left_with_its_reason(model: onnx.ModelProto, reason: str, tmp_path: Path) -> None:
    everything = everything_dynamic(read_graph(ModelFile(networks.save(model, tmp_path))), OPERATORS, [])
    assert not everything.quantized
    assert list(everything.reasons.values()) == [reason]
