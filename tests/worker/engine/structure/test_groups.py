"""What can be taken out of a network together, what has to stay and why; and that cutting it is leaving it unread."""

import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.engine.structure.masking import cut_and_checked, feed_of, saved, structure_of
from tests.worker.networks import normal
from worker.engine.structure import account
from worker.engine.structure.carrying import PICKED
from worker.engine.structure.groups import NOT_READ, find_structure
from worker.engine.structure.products import NO_WEIGHT
from worker.engine.structure.propagation import CAPTURED, COUNTED, RESULT, read_graph
from worker.engine.structure.removal import Rest
from worker.engine.structure.selection import Choice, Macs
from worker.engine.structure.sizes import measured_sizes
from worker.engine.structure.wiring import FIXED, MIXED


@dataclass
class Case:
    id: str
    model: onnx.ModelProto
    groups: list[tuple[str, str, int]]
    """By group: its producers and its consumers by the names of their weights, and its units."""
    reasons: dict[str, str] = field(default_factory=dict)
    """By weight of a product whose outputs stay: why."""


def _net(text: str, opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    return networks.prepared(text, opset, **constants)


def _integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


A, B, C = normal(8, 3, 3, 3, seed=1), normal(8, 8, 3, 3, seed=2), normal(4, 8, 1, 1, seed=3)
LAST = {"c": "it is a result of the model"}
IMAGE = "float[N,3,6,6] x"
LOGITS = "float[N,4,H,W] y"
M, P = normal(6, 8, seed=4), normal(8, 4, seed=5)
PLAIN = [("a", "c", 8)]

CASES = [
    Case(
        "conv-batch-norm-relu",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a, ab) n = BatchNormalization(h, s, t, m, v) r = Relu(n)"
            " p = MaxPool<kernel_shape=[2,2]>(r) y = Conv(p, c) }",
            a=A, ab=normal(8), s=normal(8), t=normal(8), m=normal(8), v=np.ones(8, np.float32), c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "residual",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<pads=[1,1,1,1]>(h, b) s = Add(h, k)"
            " y = Conv(s, c) }",
            a=A, b=B, c=C,
        ),
        [("a b", "b c", 8)], LAST,
    ),
    Case(
        "concatenation",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv(x, d) s = Concat<axis=1>(h, k) y = Conv(s, c) }}",
            a=A, d=normal(4, 3, 3, 3), c=normal(4, 12, 1, 1),
        ),
        [("a", "c", 8), ("d", "c", 4)], LAST,
    ),
    Case(
        "concatenation-with-the-input",
        _net(
            "g (float[N,3,6,6] x) => (float[N,4,6,6] y) { h = Conv<pads=[1,1,1,1]>(x, a) s = Concat<axis=1>(h, x)"
            " y = Conv(s, c) }",
            a=A, c=normal(4, 11, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "depthwise",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<group=8>(h, d, db) y = Conv(k, c) }}",
            a=A, d=normal(8, 1, 3, 3), db=normal(8), c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "depthwise-that-makes-two-of-each",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<group=8>(h, d) y = Conv(k, c) }}",
            a=A, d=normal(16, 1, 3, 3), c=normal(4, 16, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "grouped-by-groups",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<group=4>(h, d) y = Conv(k, c) }}",
            a=A, d=normal(12, 2, 3, 3), c=normal(4, 12, 1, 1),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "transposed-conv",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = ConvTranspose(h, d, db) y = Conv(k, c) }}",
            a=A, d=normal(8, 6, 2, 2), db=normal(6), c=normal(4, 6, 1, 1),
        ),
        [("a", "d", 8), ("d", "c", 6)], LAST,
    ),
    Case(
        "flatten",
        _net(
            "g (float[N,3,6,6] x) => (float[N,4] y) { h = Conv(x, a) f = Flatten(h) y = Gemm<transB=1>(f, c) }",
            a=A, c=normal(4, 8 * 16),
        ),
        PLAIN, LAST,
    ),
    Case(
        "reshape-by-size-and-pooling",
        _net(
            "g (float[N,3,6,6] x) => (float[N,4] y) { h = Conv(x, a) p = GlobalAveragePool(h) s = Shape(h)"
            " z = Constant<value = int64[1] {0}>() n = Gather(s, z) w = Constant<value = int64[1] {8}>()"
            " t = Concat<axis=0>(n, w) f = Reshape(p, t) y = Gemm<transB=1>(f, c) }",
            a=A, c=normal(4, 8),
        ),
        PLAIN, LAST,
    ),
    Case(
        "split-into-halves",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k, l = Split<axis=1>(h, sizes) r = Relu(k)"
            " s = Concat<axis=1>(l, r) y = Conv(s, c) }",
            a=A, c=C, sizes=_integers(3, 5),
        ),
        PLAIN, LAST,
    ),
    Case(
        "split-by-attribute",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k, l = Split<axis=1>(h) r = Relu(k)"
            " s = Concat<axis=1>(l, r) y = Conv(s, c) }",
            opset=11, a=A, c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "sliced",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Slice(h, from, to, axes) y = Conv(k, c) }}",
            a=A, c=normal(4, 5, 1, 1), **{"from": _integers(2), "to": _integers(7), "axes": _integers(1)},
        ),
        # What nobody reads stays as well: nothing tells what it is for.
        [("a", "c", 5)], LAST,
    ),
    Case(
        "shuffled-channels",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Reshape(h, four) t = Transpose<perm=[0,2,1,3,4]>(q)"
            " k = Reshape(t, back) y = Conv(k, c) }",
            a=A, c=C, four=_integers(0, 2, 4, 4, 4), back=_integers(0, 8, 4, 4),
        ),
        [("a", "c", 2)], LAST,
    ),
    Case(
        "group-norm-as-exported",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) s = Shape(h) q = Reshape(h, groups)"
            " n = InstanceNormalization(q, one, zero) r = Reshape(n, s) m = Mul(r, scale) y = Conv(m, c) }",
            a=A, c=C, groups=_integers(0, 4, -1), one=np.ones(4, np.float32), zero=np.zeros(4, np.float32),
            scale=normal(8, 1, 1),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "squeeze-and-excitation",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) p = GlobalAveragePool(h) q = Conv(p, d, db) r = Relu(q)"
            " e = Conv(r, f) w = Sigmoid(e) m = Mul(h, w) y = Conv(m, c) }",
            a=A, d=normal(6, 8, 1, 1), db=normal(6), f=normal(8, 6, 1, 1), c=C,
        ),
        [("a f", "d c", 8), ("d", "f", 6)], LAST,
    ),
    Case(
        "upsampled",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Resize(h, , by) q = Pad(k, pads) y = Conv(q, c) }}",
            a=A, c=C, by=np.array([1, 1, 2, 2], np.float32), pads=_integers(0, 0, 1, 1, 0, 0, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "padded-as-exported",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a)"
            " none = Constant<value = int64[1] {4}>() zeros = ConstantOfShape<value = int64[1] {0}>(none)"
            " all = Concat<axis=0>(given, zeros)"
            " pairs = Reshape(all, two) back = Slice(pairs, last, first, axis, step) t = Transpose<perm=[1,0]>(back)"
            " flat = Reshape(t, open) pads = Cast<to=7>(flat) q = Pad(h, pads) y = Conv(q, c) }",
            a=A, c=C, given=_integers(1, 2, 1, 2), two=_integers(-1, 2), last=_integers(-1),
            first=_integers(-np.iinfo(np.int64).max), axis=_integers(0), step=_integers(-1), open=_integers(-1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "padded-along-other-axes-by-name",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Pad(h, pads, , axes) y = Conv(q, c) }}",
            opset=18, a=A, c=C, pads=_integers(1, 2), axes=_integers(-1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "padded-by-attribute",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Pad<pads=[0,0,1,1,0,0,1,1]>(h) y = Conv(q, c) }}",
            opset=10, a=A, c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "shifted-by-a-pad",
        _net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Pad(h, pads) y = Conv(q, c) }}",
            a=A, c=C, pads=_integers(0, 1, 0, 0, 0, -1, 0, 0),
        ),
        [], {"a": MIXED, **LAST},
    ),
    Case(
        "padded-by-numbers-that-callers-give",
        _net(
            f"g ({IMAGE}, int64[8] pads) => ({LOGITS}) {{ h = Conv(x, a) q = Pad(h, pads) y = Conv(q, c) }}",
            a=A, c=C,
        ),
        [], {"a": MIXED, **LAST},
    ),
    Case(
        "one-dimensional",
        _net(
            "g (float[N,3,9] x) => (float[N,4,W] y) { h = Conv(x, a) r = LeakyRelu(h) y = Conv(r, c) }",
            a=normal(8, 3, 3), c=normal(4, 8, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "perceptron-with-bias",
        _net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) b = Add(bias, h) r = Gelu(b) y = MatMul(r, p) }",
            opset=20, m=M, p=P, bias=normal(8),
        ),
        [("m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "weights-transposed-in-the-graph",
        _net(
            "g (float[N,6] x) => (float[N,4] y) { t = Transpose<perm=[1,0]>(m) h = MatMul(x, t) r = Tanh(h)"
            " y = MatMul(r, p) }",
            m=M.T.copy(), p=P,
        ),
        [("m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "weights-from-the-left",
        _net("g (float[6,5] x) => (float[4,5] y) { h = MatMul(m, x) r = Relu(h) y = MatMul(p, r) }",
             m=M.T.copy(), p=P.T.copy()),
        [("m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "gated",
        _net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) k = MatMul(x, d) s = Sigmoid(k) r = Mul(h, s)"
            " y = MatMul(r, p) }",
            m=M, d=normal(6, 8, seed=6), p=P,
        ),
        [("m d", "p", 8)], {"p": RESULT},
    ),
    Case(
        "one-weight-read-twice",
        _net(
            "g (float[N,6] x, float[N,6] z) => (float[N,4] y) { h = MatMul(x, m) k = MatMul(z, m) s = Sub(h, k)"
            " y = MatMul(s, p) }",
            m=M, p=P,
        ),
        [("m m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "embedding",
        _net(
            "g (int64[N,5] x) => (float[N,5,4] y) { h = Gather(table, x) r = Relu(h) y = MatMul(r, p) }",
            table=normal(20, 8), p=P,
        ),
        [("table", "p", 8)], {"p": RESULT},
    ),
    Case(
        "attention-heads",
        _net(
            "g (float[N,5,6] x) => (float[N,5,4] y) {"
            " q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
            " qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split)"
            " qt = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(ks) vt = Transpose<perm=[0,2,1,3]>(vs)"
            " s = MatMul(qt, kt) w = Softmax(s) o = MatMul(w, vt) t = Transpose<perm=[0,2,1,3]>(o)"
            " m = Reshape(t, join) y = MatMul(m, p) }",
            wq=M, wk=normal(6, 8, seed=6), wv=normal(6, 8, seed=7), p=P, split=_integers(0, 0, 4, 2),
            join=_integers(0, 0, 8),
        ),
        [("wq wk wv", "p", 4)], {"p": RESULT},
    ),
    Case(
        "a-head-that-nobody-reads",
        _net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { h = MatMul(x, m) s = Reshape(h, split)"
            " k = Slice(s, first, last, axis) j = Reshape(k, join) y = MatMul(j, p) }",
            m=M, p=normal(6, 4), split=_integers(0, 0, 4, 2), first=_integers(0), last=_integers(3),
            axis=_integers(2), join=_integers(0, 0, 6),
        ),
        [("m", "p", 3)], {"p": RESULT},
    ),
    Case(
        "attention-heads-packed",
        _net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { h = MatMul(x, m) s = Reshape(h, split)"
            " t = Transpose<perm=[2,0,3,1,4]>(s) q = Gather<axis=0>(t, first) k = Gather<axis=0>(t, second)"
            " v = Gather<axis=0>(t, third) kt = Transpose<perm=[0,1,3,2]>(k) a = MatMul(q, kt) w = Softmax(a)"
            " o = MatMul(w, v) b = Transpose<perm=[0,2,1,3]>(o) j = Reshape(b, join) y = MatMul(j, p) }",
            m=normal(6, 24), p=P, split=_integers(0, 0, 3, 4, 2), join=_integers(0, 0, -1),
            first=np.array(0), second=np.array(1), third=np.array(2),
        ),
        [("m", "p", 4)], {"p": RESULT},
    ),
    Case(
        "one-head",
        networks.attention_block(),
        [("value.weight", "out.weight", 16)],
        {"embedding": MIXED, "query.weight": NO_WEIGHT, "key.weight": NO_WEIGHT, "out.weight": MIXED},
    ),
    Case(
        "layer-norm",
        _net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) r = LayerNormalization(h, s) y = MatMul(r, p) }",
            m=M, s=normal(8), p=P,
        ),
        [], {"m": MIXED, "p": RESULT},
    ),
    Case(
        "softmax-along-it",
        _net("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) r = Softmax(h) y = MatMul(r, p) }", m=M, p=P),
        [], {"m": MIXED, "p": RESULT},
    ),
    Case(
        "read-by-an-operator-that-is-not-known",
        _net(
            "g (float[N,3,6,6] x) => (float[N,4,8,8] y) { h = Conv(x, a) k = DepthToSpace<blocksize=2>(h)"
            " y = ConvTranspose(k, d) }",
            a=A, d=normal(2, 4, 1, 1),
        ),
        [], {"a": "operator DepthToSpace reads it", "d": RESULT},
    ),
    Case("recurrent", networks.recurrent(), [], {"R": RESULT}),
    Case(
        "read-in-a-sum-with-the-input",
        _net("g (float[N,8] x) => (float[N,4] y) { h = MatMul(x, m) s = Add(h, x) y = MatMul(s, p) }",
             m=normal(8, 8), p=P),
        [], {"m": FIXED, "p": RESULT},
    ),
    Case(
        "picked-by-number",
        _net("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) k = Gather<axis=1>(h, i) y = MatMul(k, p) }",
             m=M, p=normal(3, 4), i=_integers(1, 2, 5)),
        [], {"m": PICKED, "p": RESULT},
    ),
    Case(
        "summed-up",
        _net("g (float[N,6] x) => (float[N,1] y) { h = MatMul(x, m) y = ReduceMean<axes=[1]>(h) }", m=M),
        [], {"m": MIXED},
    ),
    Case(
        "read-by-nobody",
        _net("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) y = MatMul(x, p) }", m=M, p=normal(6, 4)),
        [], {"m": NOT_READ, "p": RESULT},
    ),
    Case(
        "its-size-computed-with",
        _net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) s = Shape(h) f = Cast<to=1>(s) l = ReduceMax(f)"
            " d = Div(h, l) y = MatMul(d, p) }",
            m=M, p=P,
        ),
        [], {"m": COUNTED, "p": RESULT},
    ),
    Case(
        "multiplied-by-its-sizes",
        _net(
            "g (float[N,2] x) => (float[N,4] y) { h = MatMul(x, m) s = Shape(h) f = Cast<to=1>(s) d = Mul(h, f)"
            " y = MatMul(d, p) }",
            m=normal(2, 2), p=normal(2, 4),
        ),
        [], {"m": FIXED, "p": RESULT},
    ),
    Case(
        "bias-that-is-no-constant",
        _net(
            "g (float[N,8] x) => (float[N,4] y) { h = Gemm(x, m, x) y = MatMul(h, p) }",
            m=normal(8, 8), p=P,
        ),
        [], {"m": FIXED, "p": RESULT},
    ),
    Case(
        "bias-that-another-product-makes",
        _net(
            "g (float[N,6] x) => (float[N,4] y) { k = MatMul(x, d) r = Tanh(k) h = Gemm(x, m, r) y = MatMul(h, p) }",
            m=M, d=normal(6, 8, seed=6), p=P,
        ),
        [("d m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "scale-that-callers-give",
        _net(
            "g (float[N,3,6,6] x, float[8] s) => (float[N,4,H,W] y) { h = Conv(x, a)"
            " n = BatchNormalization(h, s, t, m, v) y = Conv(n, c) }",
            a=A, t=normal(8), m=normal(8), v=np.ones(8, np.float32), c=C,
        ),
        [], {"a": FIXED, "c": RESULT},
    ),
    Case(
        "read-in-a-branch",
        _net(
            "g (float[N,6] x, bool c) => (float[N,4] y) { h = MatMul(x, m)"
            " r = If (c) <then_branch = t () => (float[N,8] u) { u = Relu(h) },"
            " else_branch = e () => (float[N,8] w) { w = Tanh(h) }> y = MatMul(r, p) }",
            m=M, p=P,
        ),
        [], {"m": CAPTURED, "p": RESULT},
    ),
    Case("functions", networks.with_function(), []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("attention-heads", "3 of 4 heads"),
        ("attention-heads-packed", "3 of 4 heads"),
        ("a-head-that-nobody-reads", "3 of 4 units of 2 channels"),
        ("grouped-by-groups", "3 of 4 units of 2 channels"),
        ("sliced", "7 of 8 units"),
    ],
)
def test_units_are_counted_as_units(name: str, left: str, tmp_path: Path) -> None:
    """Not by what they hold; and heads are what a Softmax is taken of side by side."""
    model = saved(next(case.model for case in CASES if case.id == name), tmp_path / "model")
    structure = structure_of(model, feed_of(model), tmp_path / "sizes")
    (group,) = structure.groups
    rest = Rest([], model, structure, Macs(model.structure()))
    assert account.widths(rest, Choice({group.name: np.arange(1)}))[1] == f"Left: {group.name} {left}."


def test_no_more_is_kept_of_large_activations_than_of_small_ones(tmp_path: Path) -> None:
    """Of a file that declares nothing of what lies between, whose values may then all be sizes."""
    text = "g (float[N,3,H,W] x) => (float[N,4,S,T] y) { h = Conv(x, a) r = Relu(h) y = Conv(r, c) }"
    model = _net(text, a=A, c=C)
    del model.graph.value_info[:]
    file, peaks = saved(model, tmp_path / "model"), []
    for side in (8, 256):
        sizes = measured_sizes(file, {"x": normal(1, 3, side, side)}, tmp_path / f"sizes-{side}", threads=1)
        tracemalloc.start()
        find_structure(read_graph(file), sizes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # An element of `h` alone would be 8 bytes in a list: 4 MB.
    assert peaks[1] < peaks[0] + 2**18


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_groups_are_found(case: Case, tmp_path: Path) -> None:
    model = saved(case.model, tmp_path / "model")
    structure = structure_of(model, feed_of(model), tmp_path / "sizes")

    def weights(parts: list) -> str:
        return " ".join(part.slot.weight.name for part in parts)

    by_node = {slot.node.name: slot.weight.name for slot in structure.wiring.producers}
    assert [(weights(one.producers), weights(one.consumers), one.width) for one in structure.groups] == case.groups
    assert {by_node[name]: reason for name, reason in structure.reasons.items()} == case.reasons


@pytest.mark.parametrize("case", [case for case in CASES if case.groups], ids=lambda case: case.id)
def test_what_is_cut_out_is_what_is_not_read(case: Case, tmp_path: Path) -> None:
    model = saved(case.model, tmp_path / "model")
    made = cut_and_checked(model, tmp_path)
    assert made.size_bytes() < model.size_bytes()
