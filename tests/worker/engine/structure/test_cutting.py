"""What a cut writes into nodes that count what is taken out holds for feeds of other sizes than it was measured at."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker.engine.structure.masking import answers, masked, saved, some_units, structure_of
from tests.worker.networks import normal, prepared
from worker.engine.structure.cutting import cut

MOST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Bounds:
    """Of a Slice that takes channels 2 to 7 of 8, and something of other axes."""

    id: str
    axes: list[int]
    starts: list[int]
    ends: list[int]
    steps: list[int]


BOUNDS = (
    Bounds("all-samples", [0, 1], [0, 2], [MOST, 7], [1, 1]),
    Bounds("all-but-the-border", [1, 2, 3], [2, 1, 1], [7, -1, -1], [1, 1, 1]),
    Bounds("backwards", [-1, -3], [-1, 2], [-MOST, 7], [-1, 1]),
)


def _checked(model: onnx.ModelProto, folder: Path) -> None:
    """Cut as measured on one sample of 6 x 6, it answers five of 9 x 8 as the model that does not read what went."""
    file = saved(model, folder / "model")
    structure = structure_of(file, {"x": normal(1, 3, 6, 6)}, folder / "sizes")
    assert [group.width for group in structure.groups] == [5]
    gone = some_units(structure)
    made = cut(file, structure, gone, folder / "cut")
    onnx.checker.check_model(str(made.path), full_check=True)
    unread = masked(file, structure, gone, folder / "masked")
    feed = {"x": normal(5, 3, 9, 8)}
    for left, right in zip(answers(unread, feed), answers(made, feed), strict=True):
        # Leaving out zeros only reorders sums.
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64], ids=str)
@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: bounds.id)
def test_a_slice_keeps_its_bounds_along_axes_that_stay(bounds: Bounds, dtype: type, tmp_path: Path) -> None:
    model = prepared(
        "g (float[N,3,H,W] x) => (float[M,4,S,T] y) { h = Conv(x, a) k = Slice(h, from, to, axes, steps)"
        " y = Conv(k, c) }",
        a=normal(8, 3, 3, 3, seed=1),
        c=normal(4, 5, 1, 1, seed=2),
        **{"from": np.array(bounds.starts, dtype), "to": np.array(bounds.ends, dtype)},
        axes=np.array(bounds.axes, dtype),
        steps=np.array(bounds.steps, dtype),
    )
    _checked(model, tmp_path)


def test_a_slice_by_attributes_keeps_them_along_axes_that_stay(tmp_path: Path) -> None:
    model = prepared(
        "g (float[N,3,H,W] x) => (float[M,4,S,T] y) { h = Conv(x, a)"
        f" k = Slice<axes=[0,1,2], starts=[0,2,1], ends=[{MOST},7,-1]>(h) y = Conv(k, c) }}",
        opset=9,
        a=normal(8, 3, 3, 3, seed=1),
        c=normal(4, 5, 1, 1, seed=2),
    )
    _checked(model, tmp_path)


def test_a_split_keeps_its_form_where_a_file_spells_the_standard_domain_out(tmp_path: Path) -> None:
    """Taken for opset 0, it would be given its sizes as an attribute, which no runtime takes any more."""
    model = prepared(
        "g (float[N,5] x) => (float[N,4] y) { h = MatMul(x, a) p, q = Split<axis=-1, num_outputs=2>(h) s = Sigmoid(p)"
        " m = Mul(s, q) y = MatMul(m, c) }",
        opset=18,
        a=normal(5, 16, seed=1),
        c=normal(8, 4, seed=2),
    )
    model.opset_import[0].domain = "ai.onnx"
    file, feed = saved(model, tmp_path / "model"), {"x": normal(2, 5)}
    structure = structure_of(file, feed, tmp_path / "sizes")
    gone = some_units(structure)
    assert len(gone) == 4
    (right,), (made,) = (
        answers(one, feed)
        for one in (masked(file, structure, gone, tmp_path / "masked"), cut(file, structure, gone, tmp_path / "cut"))
    )
    np.testing.assert_allclose(made, right, rtol=1e-4, atol=1e-5)


def test_bounds_that_another_node_reads_as_well_are_given_anew_in_their_dtype(tmp_path: Path) -> None:
    """Starts, ends and axes of a Slice must be of one."""
    model = prepared(
        "g (float[N,3,H,W] x) => (float[M,4,S,T] y, float[M,4,S,T] z) { h = Conv(x, a) k = Slice(h, from, to, axes)"
        " y = Conv(k, c) u = Conv(x, b) v = Slice(u, from, last, axes) z = Conv(v, d) }",
        a=normal(8, 3, 3, 3, seed=1),
        c=normal(4, 5, 1, 1, seed=2),
        b=normal(5, 3, 1, 1, seed=3),
        d=normal(4, 3, 1, 1, seed=4),
        **{"from": np.array([2], np.int32), "to": np.array([7], np.int32), "last": np.array([5], np.int32)},
        axes=np.array([1], np.int32),
    )
    file = saved(model, tmp_path / "model")
    feed = {"x": normal(2, 3, 6, 6)}
    structure = structure_of(file, feed, tmp_path / "sizes")
    gone = some_units(structure)
    made = cut(file, structure, gone, tmp_path / "cut")
    unread = masked(file, structure, gone, tmp_path / "masked")
    for left, right in zip(answers(unread, feed), answers(made, feed), strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)


SIZES = (
    "s = Shape(x) first = Gather(s, zero) second = Gather(s, one) width = Gather(s, two)"
    " first1 = Unsqueeze(first, at) second1 = Unsqueeze(second, at) width1 = Unsqueeze(width, at)"
)
SPLIT = "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv)"
ATTENTION = "a = MatMul(q, kt) w = Softmax(a) o = MatMul(w, v)"


def _views(shape: str, order: str, turned: str) -> str:
    """Query, key and value of one shape, the key's matrices transposed."""
    parts = [f"{one}r = Reshape({one}0, {shape})" for one in "qkv"]
    parts += [f"{one} = Transpose<perm={order}>({one}r)" for one in "qv"]
    return " ".join([*parts, f"kt = Transpose<perm={turned}>(kr)"])


@dataclass(frozen=True)
class Shaping:
    """How shapes of heads come about. `measured` and `other` are feeds: samples and steps, or the other way round."""

    id: str
    text: str
    measured: tuple[int, int] = (1, 6)
    other: tuple[int, int] = (3, 6)
    result: str = "C,D,3"


SHAPINGS = (
    Shaping(
        "samples-times-heads",  # view(bsz * heads, -1, head_dim), as in BART and DETR
        f"{SIZES} {SPLIT} many = Mul(first, heads) many1 = Unsqueeze(many, at)"
        " four = Concat<axis=0>(first1, second1, heads1, each) three = Concat<axis=0>(many1, open, each)"
        f" {_views('four', '[0,2,1,3]', '[0,2,1,3]')}"
        " q3 = Reshape(q, three) k3 = Reshape(kt, three) v3 = Reshape(v, three)"
        " k3t = Transpose<perm=[0,2,1]>(k3) a = MatMul(q3, k3t) w = Softmax(a) o = MatMul(w, v3)"
        " back = Concat<axis=0>(first1, heads1, second1, each) o4 = Reshape(o, back)"
        " ot = Transpose<perm=[0,2,1,3]>(o4) all = Concat<axis=0>(first1, second1, whole) j = Reshape(ot, all)",
    ),
    Shaping(
        "steps-first",  # view(steps, bsz * heads, head_dim), as in MultiheadAttention
        f"{SIZES} {SPLIT} many = Mul(heads, second) many1 = Unsqueeze(many, at)"
        f" three = Concat<axis=0>(first1, many1, each) {_views('three', '[1,0,2]', '[1,2,0]')} {ATTENTION}"
        " ot = Transpose<perm=[1,0,2]>(o) rows = Mul(first, second) rows1 = Unsqueeze(rows, at)"
        " flat = Concat<axis=0>(rows1, whole) j = Reshape(ot, flat)",
        measured=(6, 1),
        other=(5, 3),
        result="C,3",
    ),
    Shaping(
        "joined-to-a-size-of-the-input",  # y.view(B, T, C) with B, T, C = x.size()
        f"{SIZES} {SPLIT} four = Concat<axis=0>(first1, second1, heads1, each)"
        f" {_views('four', '[0,2,1,3]', '[0,2,3,1]')} {ATTENTION} ot = Transpose<perm=[0,2,1,3]>(o)"
        " all = Concat<axis=0>(first1, second1, width1) j = Reshape(ot, all)",
        other=(3, 4),
    ),
    Shaping(
        "joined-to-the-shape-of-the-input",  # y.reshape(x.shape)
        f"{SIZES} {SPLIT} four = Concat<axis=0>(first1, second1, heads1, each)"
        f" {_views('four', '[0,2,1,3]', '[0,2,3,1]')} {ATTENTION} ot = Transpose<perm=[0,2,1,3]>(o)"
        " j = Reshape(ot, s)",
        other=(3, 4),
    ),
)


SHAPINGS += tuple(
    replace(one, id=f"{one.id}-measured-otherwise", measured=one.other, other=one.measured) for one in SHAPINGS
)


@pytest.mark.parametrize("shaping", SHAPINGS, ids=lambda shaping: shaping.id)
def test_heads_are_cut_for_calls_of_all_sizes(shaping: Shaping, tmp_path: Path) -> None:
    model = prepared(
        f"g (float[A,B,8] x) => (float[{shaping.result}] y) {{ {shaping.text} y = MatMul(j, p) }}",
        **{f"w{one}": normal(8, 8, seed=seed) for seed, one in enumerate("qkv")},
        p=normal(8, 3, seed=5),
        zero=np.array(0), one=np.array(1), two=np.array(2), at=np.array([0]), heads=np.array(4),
        heads1=np.array([4]), each=np.array([2]), whole=np.array([8]), open=np.array([-1]),
    )  # fmt: skip
    file = saved(model, tmp_path / "model")
    structure = structure_of(file, {"x": normal(*shaping.measured, 8)}, tmp_path / "sizes")
    assert [group.width for group in structure.groups] == [4]
    gone = some_units(structure)
    made = cut(file, structure, gone, tmp_path / "cut")
    onnx.checker.check_model(str(made.path), full_check=True)
    unread = masked(file, structure, gone, tmp_path / "masked")
    for sizes in (shaping.measured, shaping.other):
        feed = {"x": normal(*sizes, 8)}
        for left, right in zip(answers(unread, feed), answers(made, feed), strict=True):
            # Leaving out zeros only reorders sums.
            np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)


GROUPED = (
    "g (float[N,3,6,6] x) => (float[N,4,6,6] y) { h = Conv<pads=[1,1,1,1]>(x, a) s = Shape(h) b = Gather(s, zero)"
    " many = Mul(b, four) many1 = Unsqueeze(many, at) sizes = Concat<axis=0>(many1, rest) g = Reshape(h, sizes)"
    " m = ReduceMean<axes=[1,2,3]>(g) w = Sigmoid(m) k = Mul(g, w) r = Reshape(k, s) y = Conv(r, c) }"
)


def test_groups_that_samples_are_multiplied_by_are_cut_for_calls_of_all_sizes(tmp_path: Path) -> None:
    """view(b * groups, ...). What the file says of the size of such an axis is no number, nor is it one afterwards."""
    model = prepared(
        GROUPED, a=normal(16, 3, 3, 3, seed=1), c=normal(4, 16, 1, 1, seed=2), zero=np.array(0), four=np.array(4),
        at=np.array([0]), rest=np.array([4, 6, 6]),
    )  # fmt: skip
    del model.graph.value_info[:]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT, ["4*N", 4, 6, 6]))
    file = saved(model, tmp_path / "model")
    structure = structure_of(file, {"x": normal(1, 3, 6, 6)}, tmp_path / "sizes")
    assert [group.width for group in structure.groups] == [4]
    gone = some_units(structure)
    made = cut(file, structure, gone, tmp_path / "cut")
    (declared,) = (value for value in onnx.load(made.path).graph.value_info if value.name == "g")
    assert not declared.type.tensor_type.shape.dim[0].HasField("dim_value")
    unread = masked(file, structure, gone, tmp_path / "masked")
    for left, right in zip(answers(unread, feed := {"x": normal(3, 3, 6, 6)}), answers(made, feed), strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)


def test_heads_stay_where_their_number_is_computed_in_another_way(tmp_path: Path) -> None:
    model = prepared(
        "g (float[N,6,8] x) => (float[N,6,4,2] y) { h = MatMul(x, m) s = Shape(h) all = Gather(s, two)"
        " heads = Div(all, each) heads1 = Unsqueeze(heads, at) rest = Concat<axis=0>(same, heads1, open)"
        " q = Reshape(h, rest) t = Transpose<perm=[0,1,3,2]>(q) y = MatMul(t, p) }",
        m=normal(8, 8), p=normal(4, 4), two=np.array(2), each=np.array(2), at=np.array([0]), same=np.array([0, 0]),
        open=np.array([-1]),
    )  # fmt: skip
    structure = structure_of(saved(model, tmp_path / "model"), {"x": normal(1, 6, 8)}, tmp_path / "sizes")
    assert structure.groups == []


def test_a_size_that_another_tensor_is_given_stays(tmp_path: Path) -> None:
    """What is reshaped to be as wide as `h` is as wide in itself."""
    model = prepared(
        "g (float[N,8] x, float[N,2,4] z) => (float[N,4] y, float[N,8] u) { h = MatMul(x, m) s = Shape(h)"
        " u = Reshape(z, s) r = Relu(h) y = MatMul(r, p) }",
        m=normal(8, 8), p=normal(8, 4),
    )  # fmt: skip
    feed = {"x": normal(1, 8), "z": normal(1, 2, 4)}
    structure = structure_of(saved(model, tmp_path / "model"), feed, tmp_path / "sizes")
    assert structure.groups == []
