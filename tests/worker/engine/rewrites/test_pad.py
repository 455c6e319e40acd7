"""Pad goes into the convolution behind it where it adds zeros over space, and nowhere else."""

import numpy as np
import pytest

from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import normal, prepared
from worker.engine.rewrites.pad import fold_pad

# Rows above, columns before, rows below, columns behind: no two alike.
WIDTHS = np.array([0, 0, 1, 2, 0, 0, 3, 4])
ZERO = np.float32(0)
WEIGHT = normal(4, 3, 3, 3)


def _padded(convolution: str, pad: str = "p = Pad(x, widths)", image: str = "2,3,9,8") -> str:
    return f"network (float[{image}] x) => (float[n,k,h,w] y) {{ {pad} {convolution} }}"


@pytest.mark.parametrize(
    ("attributes", "pads"),
    [
        ("", [1, 2, 3, 4]),
        ("<pads = [1, 0, 0, 2]>", [2, 2, 3, 6]),
        ("<strides = [2, 2], dilations = [2, 1]>", [1, 2, 3, 4]),
        ('<auto_pad = "VALID">', [1, 2, 3, 4]),
        ('<auto_pad = "NOTSET", pads = [1, 1, 1, 1]>', [2, 3, 4, 5]),
    ],
    ids=["bare", "own-pads", "strided", "valid", "not-set"],
)
def test_the_convolution_pads_by_itself(attributes: str, pads: list[int]) -> None:
    text = _padded(f"y = Conv{attributes}(p, w)")
    found = apply(fold_pad, prepared(text, widths=WIDTHS, w=WEIGHT))
    assert (found.count, found.operators) == (1, {"Conv": 1})
    (node,) = found.model.graph.node
    assert {one.name: list(one.ints) for one in node.attribute}["pads"] == pads
    assert "auto_pad" not in {one.name for one in node.attribute}


@pytest.mark.parametrize("group", [1, 3])
def test_every_convolution_behind_it_does(group: int) -> None:
    text = (
        "network (float[2,3,9,8] x) => (float[n,k,h,w] y, float[n,l,h,w] z) "
        f"{{ p = Pad(x, widths, zero) y = Conv(p, w) z = Conv<group = {group}>(p, v) }}"
    )
    constants = {"widths": WIDTHS, "zero": ZERO, "w": WEIGHT, "v": normal(6, 3 // group, 1, 1)}
    found = apply(fold_pad, prepared(text, **constants))
    assert (found.count, found.operators) == (1, {"Conv": 2})


def test_widths_may_be_given_for_some_axes() -> None:
    pad = "p = Pad(x, widths, zero, axes)"
    constants = {"widths": np.array([4, 1, 2, 3]), "zero": ZERO, "axes": np.array([-1, 2]), "w": WEIGHT}
    found = apply(fold_pad, prepared(_padded("y = Conv(p, w)", pad), opset=18, **constants))
    (node,) = found.model.graph.node
    assert {one.name: list(one.ints) for one in node.attribute}["pads"] == [1, 4, 3, 2]


def test_other_ranks_are_padded_alike() -> None:
    text = "network (float[2,3,9] x) => (float[n,k,w] y) { p = Pad(x, widths) y = Conv(p, w) }"
    found = apply(fold_pad, prepared(text, widths=np.array([0, 0, 1, 0, 0, 2]), w=normal(4, 3, 3)))
    assert found.operators == {"Conv": 1}


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER"])
def test_padding_that_follows_from_the_size_is_left_alone(automatic: str) -> None:
    text = _padded(f'y = Conv<auto_pad = "{automatic}">(p, w)')
    assert apply(fold_pad, prepared(text, widths=WIDTHS, w=WEIGHT)).operators == {"Pad": 1, "Conv": 1}


@pytest.mark.parametrize(
    ("pad", "constants"),
    [
        ("p = Pad(x, widths, value)", {"value": np.float32(1)}),
        ('p = Pad<mode = "reflect">(x, widths)', {}),
        ("p = Pad(x, widths)", {"widths": np.array([0, 1, 1, 1, 0, 0, 1, 1]), "w": normal(4, 4, 3, 3)}),
        ("p = Pad(x, widths)", {"widths": np.array([1, 0, 1, 1, 0, 0, 1, 1])}),
        ("p = Pad(x, widths)", {"widths": np.array([0, 0, -1, 0, 0, 0, 1, 1])}),
    ],
    ids=["another-value", "reflection", "channels", "samples", "cropping"],
)
def test_a_pad_that_is_no_frame_of_zeros_is_left_alone(pad: str, constants: dict[str, np.ndarray]) -> None:
    given = {"widths": WIDTHS, "w": WEIGHT} | constants
    found = apply(fold_pad, prepared(_padded("y = Conv(p, w)", pad), **given))
    assert (found.count, found.operators) == (0, {"Pad": 1, "Conv": 1})


@pytest.mark.parametrize(
    "text",
    [
        "network (float[2,3,9,8] x) => (float[n,k,h,w] y, float[n,l,h,w] z) { p = Pad(x, widths) y = Conv(p, w) "
        "z = Relu(p) }",
        "network (float[2,3,9,8] x) => (float[n,k,h,w] y, float[n,l,h,w] p) { p = Pad(x, widths) y = Conv(p, w) }",
        "network (float[2,3,9,8] x, float[1,3,9,8] v) => (float[n,k,h,w] y) { p = Pad(v, widths) y = Conv(x, p) }",
    ],
    ids=["another-reader", "an-output-too", "a-filter"],
)
def test_a_pad_that_others_need_is_left_alone(text: str) -> None:
    widths = np.zeros(8, np.int64) if "Conv(x, p)" in text else WIDTHS
    found = apply(fold_pad, prepared(text, widths=widths, **({"w": WEIGHT} if "Conv(p, w)" in text else {})))
    assert found.count == 0
    assert found.operators["Pad"] == 1
