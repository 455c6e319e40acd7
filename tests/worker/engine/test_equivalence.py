"""A rewrite changed nothing: arrays up to rounding, sequences item by item, what is not finite in the same places."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.networks import normal, prepared
from worker.engine.equivalence import Reference, difference
from worker.engine.model_file import ModelFile

X = normal(2, 4)


def _difference(
    before: onnx.ModelProto, after: onnx.ModelProto, folder: Path, x: np.ndarray = X, **others: np.ndarray
) -> str | None:
    first, second = (
        ModelFile(networks.save(model, folder / name)) for name, model in (("before", before), ("after", after))
    )
    return difference(Reference.of(first, {"x": x, **others}, threads=1), second)


def _model(body: str, output: str = "float[2,4] y") -> onnx.ModelProto:
    return prepared(
        f"network (float[2,4] x) => ({output}) {{ {body} }}",
        one=np.float32(1),
        small=np.float32(1 + 1e-5),
        low=np.full((2, 1), -1e9, np.float32),
        lowest=np.full((2, 5), np.finfo(np.float32).min),
    )


@pytest.mark.parametrize(
    ("before", "after", "output"),
    [
        ("y = Mul(x, one)", "y = Identity(x)", "float[2,4] y"),
        ("y = Mul(x, small)", "y = Identity(x)", "float[2,4] y"),
        ("y = Sqrt(x)", "z = Sqrt(x) y = Identity(z)", "float[2,4] y"),
        ("y = SequenceConstruct(x, x)", "z = Neg(x) n = Neg(z) y = SequenceConstruct(n, x)", "seq(float[2,4]) y"),
        ("z = Mul(x, small) y = Concat<axis = 1>(z, lowest)", "y = Concat<axis = 1>(x, lowest)", "float[2,9] y"),
        (
            "a = Mul(x, one) b = Sub(a, low) y = Concat<axis = 1>(x, b)",
            "a = Mul(x, small) b = Sub(a, low) y = Concat<axis = 1>(x, b)",
            "float[2,8] y",
        ),
        ("a = Mul(low, small) y = Concat<axis = 1>(x, a)", "y = Concat<axis = 1>(x, low)", "float[2,5] y"),
    ],
    ids=[
        "nothing",
        "rounding",
        "nan-in-the-same-places",
        "sequences",
        "rounding-beside-hidden",
        "small-in-large",
        "rounding-of-large",
    ],
)
def test_the_same_is_the_same(before: str, after: str, output: str, tmp_path: Path) -> None:
    assert _difference(_model(before, output), _model(after, output), tmp_path) is None


@pytest.mark.parametrize(
    ("before", "after", "output"),
    [
        ("y = Identity(x)", "y = Neg(x)", "float[2,4] y"),
        ("y = Identity(x)", "y = Sqrt(x)", "float[2,4] y"),
        ("z = Sub(x, x) y = Div(one, z)", "z = Sub(x, x) y = Div(z, z)", "float[2,4] y"),
        ("y = ReduceSum(x)", "y = ReduceSum<keepdims = 0>(x)", "float y"),
        ("y = Greater(x, one)", "y = Less(x, one)", "bool[2,4] y"),
        ("y = SequenceConstruct(x, x)", "n = Neg(x) y = SequenceConstruct(x, n)", "seq(float[2,4]) y"),
        ("y = SequenceConstruct(x, x)", "y = SequenceConstruct(x)", "seq(float[2,4]) y"),
        ("y = Concat<axis = 1>(x, low)", "n = Neg(x) y = Concat<axis = 1>(n, low)", "float[2,5] y"),
        ("y = Concat<axis = 1>(x, lowest)", "n = Neg(x) y = Concat<axis = 1>(n, lowest)", "float[2,9] y"),
        (
            "y = Concat<axis = 1>(x, low, lowest)",
            "n = Neg(low) y = Concat<axis = 1>(x, n, lowest)",
            "float[2,10] y",
        ),
    ],
    ids=[
        "sign",
        "nan",
        "nan-for-infinity",
        "shape",
        "truth",
        "item",
        "length",
        "beside-a-large-one",
        "beside-many-hidden",
        "large-beside-larger",
    ],
)
def test_another_answer_is_said(before: str, after: str, output: str, tmp_path: Path) -> None:
    assert _difference(_model(before, output), _model(after, output), tmp_path) == "output 'y' changed"


NOISE = "r = RandomNormalLike(x) y = Add(x, r)"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (f"{NOISE} z = Neg(x)", f"n = Neg(x) {NOISE} z = Identity(n)", None),
        (f"{NOISE} z = Neg(x)", f"n = Abs(x) {NOISE} z = Identity(n)", "output 'z' changed"),
        (
            f"{NOISE} z = Neg(y)",
            f"n = Neg(x) {NOISE} z = Neg(y)",
            "outputs differ from call to call: nothing can be compared",
        ),
    ],
    ids=["the-same", "another", "chance-alone"],
)
def test_what_chance_has_a_part_in_is_not_compared(
    before: str, after: str, expected: str | None, tmp_path: Path
) -> None:
    outputs = "float[2,4] y, float[2,4] z"
    assert _difference(_model(before, outputs), _model(after, outputs), tmp_path) == expected


def test_a_model_whose_inputs_became_float16_takes_the_float32_of_its_job(tmp_path: Path) -> None:
    noise = "r = RandomNormalLike<dtype = 1>(x) h = Cast<to = 10>(r) y = Add(x, h)"
    first, second = (
        prepared(f"network (float16[2,4] x) => (float16[2,4] y, float16[2,4] z) {{ {body} }}")
        for body in (f"{noise} z = Neg(x)", f"n = Neg(x) {noise} z = Identity(n)")
    )
    assert _difference(first, second, tmp_path) is None


# On masks that hide nothing but at the end all of them answer the same.
BY_PLACE = "m = Cast<to = 1>(mask) y = Mul(x, m)"
BY_NUMBER = "i = Cast<to = 7>(mask) n = ReduceSum(i, last) seen = Less(places, n) m = Cast<to = 1>(seen) y = Mul(x, m)"


@pytest.mark.parametrize("mask", [np.ones((2, 4), bool), np.array([[1, 1, 1, 0], [1, 1, 0, 0]])], ids=["none", "end"])
def test_a_rewrite_that_looks_only_at_how_much_a_mask_hides_is_seen(mask: np.ndarray, tmp_path: Path) -> None:
    kind = "bool" if mask.dtype == bool else "int64"
    by_place, by_number = (
        prepared(
            f"network (float[2,4] x, {kind}[2,4] mask) => (float[2,4] y) {{ {body} }}",
            last=np.array([1]),
            places=np.arange(4),
        )
        for body in (BY_PLACE, BY_NUMBER)
    )
    assert _difference(by_place, by_place, tmp_path / "same", mask=mask) is None
    assert _difference(by_place, by_number, tmp_path / "other", mask=mask) == "output 'y' changed"


def test_where_no_other_mask_is_taken_the_call_itself_is_compared(tmp_path: Path) -> None:
    """Its sum is the number of elements of a shape, so that it has to hide nothing."""
    same, other = (
        prepared(
            "network (float[2,4] x, int64[8] mask) => (float[N] y) "
            f"{{ n = ReduceSum(mask) flat = Reshape(x, n) y = {operator}(flat) }}"
        )
        for operator in ("Identity", "Neg")
    )
    mask = np.ones(8, np.int64)
    assert _difference(same, same, tmp_path / "same", mask=mask) is None
    assert _difference(same, other, tmp_path / "other", mask=mask) == "output 'y' changed"


def test_a_model_that_does_not_load_is_a_difference(tmp_path: Path) -> None:
    found = _difference(_model("y = Identity(x)"), _model("y = Conv(x, one)"), tmp_path)
    assert found is not None
    assert "does not load" in found
