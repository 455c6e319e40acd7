"""BatchNormalization goes where it costs nothing, and nowhere where it would change the answer."""

import numpy as np
import onnx
import pytest

from tests.worker.engine.rewrites.applying import apply, statistics
from tests.worker.networks import normal, prepared
from worker.engine.rewrites.batch_norm import fold_batch_norm

BEHIND = "y = BatchNormalization(c, s, o, m, v)"


@pytest.mark.parametrize(
    ("producer", "operator", "constants"),
    [
        ("c = Conv(x, w)", "Conv", {"w": normal(4, 3, 3, 3)}),
        ("c = Conv<pads = [1, 1, 1, 1]>(x, w, b)", "Conv", {"w": normal(4, 3, 3, 3), "b": normal(4)}),
        ('c = Conv<auto_pad = "SAME_UPPER", group = 3>(x, w)', "Conv", {"w": normal(6, 1, 3, 3)}),
        ("c = ConvTranspose(x, w, b)", "ConvTranspose", {"w": normal(3, 4, 3, 3), "b": normal(4)}),
    ],
    ids=["bare", "bias-and-pads", "depthwise", "transposed"],
)
def test_it_goes_into_the_convolution_before_it(producer: str, operator: str, constants: dict[str, np.ndarray]) -> None:
    channels = constants["w"].shape[1 if operator == "ConvTranspose" else 0]
    text = f"network (float[2,3,8,8] x) => (float[n,k,h,w] y) {{ {producer} {BEHIND} }}"
    found = apply(fold_batch_norm, prepared(text, **constants, **statistics(channels)))
    assert (found.count, found.operators) == (1, {operator: 1})


@pytest.mark.parametrize(
    ("attributes", "weight", "bias"),
    [
        ("", normal(8, 4), normal(4)),
        ("<transB = 1>", normal(4, 8), normal(1, 4)),
        ("<transA = 0>", normal(8, 4), np.float32(0.5)),
    ],
    ids=["row", "transposed", "one-for-all"],
)
def test_it_goes_into_the_product_before_it(attributes: str, weight: np.ndarray, bias: np.ndarray) -> None:
    text = f"network (float[3,8] x) => (float[3,4] y) {{ c = Gemm{attributes}(x, w, b) {BEHIND} }}"
    found = apply(fold_batch_norm, prepared(text, w=weight, b=np.asarray(bias), **statistics(4)))
    assert (found.count, found.operators) == (1, {"Gemm": 1})


@pytest.mark.parametrize(
    ("product", "constants"),
    [
        ("c = Gemm(x, w, b)", {"w": normal(8, 4), "b": normal(4, 4)}),
        ("c = Gemm(x, w, b)", {"w": normal(8, 4), "b": normal(4, 1)}),
        ("c = Gemm<alpha = 2.0>(x, w)", {"w": normal(8, 4)}),
    ],
    ids=["matrix-of-biases", "bias-by-row", "alpha"],
)
def test_a_product_that_cannot_take_it_gets_a_factor_and_an_offset_behind(
    product: str, constants: dict[str, np.ndarray]
) -> None:
    text = f"network (float[4,8] x) => (float[4,4] y) {{ {product} {BEHIND} }}"
    found = apply(fold_batch_norm, prepared(text, **constants, **statistics(4)))
    assert (found.count, found.operators) == (1, {"Gemm": 1, "Mul": 1, "Add": 1})


def test_a_weight_that_others_read_too_stays_as_it_is_for_them() -> None:
    outputs = "float[n,k,h,w] y, float[n,k,h,w] z"
    text = f"network (float[2,3,8,8] x) => ({outputs}) {{ c = Conv(x, w) z = Conv(x, w) {BEHIND} }}"
    found = apply(fold_batch_norm, prepared(text, w=normal(4, 3, 3, 3), **statistics(4)))
    assert (found.count, found.operators) == (1, {"Conv": 2})


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "network (float[2,3,8,8] x) => (float[n,k,h,w] y, float[n,k,h,w] z) "
            "{ c = Conv(x, w) y = BatchNormalization(c, s, o, m, v) z = Relu(c) }",
            {"Conv": 1, "Relu": 1, "Mul": 1, "Add": 1},
        ),
        (
            "network (float[2,3,8,8] x) => (float[n,k,h,w] y, float[n,k,h,w] c) "
            "{ c = Conv(x, w) y = BatchNormalization(c, s, o, m, v) }",
            {"Conv": 1, "Mul": 1, "Add": 1},
        ),
    ],
    ids=["two-readers", "an-output-too"],
)
def test_a_convolution_that_others_read_keeps_its_weights(text: str, left: dict[str, int]) -> None:
    found = apply(fold_batch_norm, prepared(text, w=normal(4, 3, 3, 3), **statistics(4)))
    assert (found.count, found.operators) == (1, left)


@pytest.mark.parametrize("attributes", ["", "<pads = [0, 0, 0, 0]>", '<auto_pad = "VALID">'])
def test_it_goes_into_the_convolution_behind_it(attributes: str) -> None:
    text = (
        "network (float[2,3,8,8] x) => (float[n,k,h,w] y) "
        f"{{ r = Relu(x) c = BatchNormalization(r, s, o, m, v) y = Conv{attributes}(c, w, b) }}"
    )
    found = apply(fold_batch_norm, prepared(text, w=normal(4, 3, 3, 3), b=normal(4), **statistics(3)))
    assert (found.count, found.operators) == (1, {"Relu": 1, "Conv": 1})


def test_it_goes_into_the_product_behind_it() -> None:
    text = "network (float[3,8] x) => (float[3,4] y) { c = BatchNormalization(x, s, o, m, v) y = Gemm(c, w) }"
    found = apply(fold_batch_norm, prepared(text, w=normal(8, 4), **statistics(8)))
    assert (found.count, found.operators) == (1, {"Gemm": 1})


@pytest.mark.parametrize("attributes", ["<pads = [1, 1, 1, 1]>", '<auto_pad = "SAME_LOWER">'])
def test_an_offset_does_not_go_into_a_convolution_that_pads(attributes: str) -> None:
    """Padding puts zeros where the offset would be."""
    text = (
        "network (float[2,3,8,8] x) => (float[n,k,h,w] y) "
        f"{{ c = BatchNormalization(x, s, o, m, v) y = Conv{attributes}(c, w) }}"
    )
    constants = {"w": normal(4, 3, 3, 3), **statistics(3)}
    found = apply(fold_batch_norm, prepared(text, **constants))
    assert found.operators == {"Mul": 1, "Add": 1, "Conv": 1}
    alone = constants | {"o": np.zeros(3, np.float32), "m": np.zeros(3, np.float32)}
    assert apply(fold_batch_norm, prepared(text, **alone)).operators == {"Conv": 1}


def test_grouped_convolutions_behind_it_do_not_take_it() -> None:
    text = (
        "network (float[2,4,8,8] x) => (float[n,k,h,w] y) "
        "{ c = BatchNormalization(x, s, o, m, v) y = Conv<group = 2>(c, w) }"
    )
    found = apply(fold_batch_norm, prepared(text, w=normal(4, 2, 3, 3), **statistics(4)))
    assert found.operators == {"Mul": 1, "Add": 1, "Conv": 1}


@pytest.mark.parametrize("shape", ["4,3,5,5", "4,3,5", "4,3"])
def test_alone_it_is_a_factor_and_an_offset_a_channel(shape: str) -> None:
    text = f"network (float[{shape}] x) => (float[{shape}] y) {{ y = BatchNormalization(x, s, o, m, v) }}"
    found = apply(fold_batch_norm, prepared(text, **statistics(3)))
    assert (found.count, found.operators) == (1, {"Mul": 1, "Add": 1})


@pytest.mark.parametrize(
    "text",
    [
        "network (float[4,3,5,5] x, float[3] m) => (float[4,3,5,5] y) { y = BatchNormalization(x, s, o, m, v) }",
        "network (float[4,3,5,5] x) => (float[4,3,5,5] y, float[3] a, float[3] b) "
        "{ y, a, b = BatchNormalization<training_mode = 1>(x, s, o, m, v) }",
    ],
    ids=["computed-mean", "training"],
)
def test_what_is_not_known_beforehand_is_left_alone(text: str) -> None:
    constants = statistics(3)
    if "float[3] m)" in text:
        del constants["m"]
    found = apply(fold_batch_norm, prepared(text, **constants))
    assert (found.count, found.operators) == (0, {"BatchNormalization": 1})


def test_names_that_the_model_has_already_are_not_used_again() -> None:
    text = (
        "network (float[4,3,5,5] x) => (float[4,3,5,5] y, float[4,3,5,5] z) "
        "{ norm_factor = Relu(x) y_scaled = Neg(norm_factor) z = Relu(y_scaled) y = BatchNormalization(x, s, o, m, v) }"
    )
    model = prepared(text, **statistics(3))
    next(node for node in model.graph.node if node.op_type == "BatchNormalization").name = "norm"
    found = apply(fold_batch_norm, model)
    assert found.count == 1
    onnx.checker.check_model(found.model)
