"""Networks with units that can be taken out of them."""

from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.structure.products import NO_WEIGHT
from worker.engine.structure.propagation import RESULT
from worker.engine.structure.wiring import MIXED


@dataclass
class Case:
    id: str
    model: onnx.ModelProto
    groups: list[tuple[str, str, int]]
    """By group: its producers and its consumers by the names of their weights, and its units."""
    reasons: dict[str, str] = field(default_factory=dict)
    """By weight of a product whose outputs stay: why."""


def net(text: str, opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    return networks.prepared(text, opset, **constants)


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


A, B, C = normal(8, 3, 3, 3, seed=1), normal(8, 8, 3, 3, seed=2), normal(4, 8, 1, 1, seed=3)
LAST = {"c": "it is a result of the model"}
IMAGE = "float[N,3,6,6] x"
LOGITS = "float[N,4,H,W] y"
M, P = normal(6, 8, seed=4), normal(8, 4, seed=5)
PLAIN = [("a", "c", 8)]

GOING = [
    Case(
        "conv-batch-norm-relu",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a, ab) n = BatchNormalization(h, s, t, m, v) r = Relu(n)"
            " p = MaxPool<kernel_shape=[2,2]>(r) y = Conv(p, c) }",
            a=A, ab=normal(8), s=normal(8), t=normal(8), m=normal(8), v=np.ones(8, np.float32), c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "residual",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<pads=[1,1,1,1]>(h, b) s = Add(h, k)"
            " y = Conv(s, c) }",
            a=A, b=B, c=C,
        ),
        [("a b", "b c", 8)], LAST,
    ),
    Case(
        "concatenation",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv(x, d) s = Concat<axis=1>(h, k) y = Conv(s, c) }}",
            a=A, d=normal(4, 3, 3, 3), c=normal(4, 12, 1, 1),
        ),
        [("a", "c", 8), ("d", "c", 4)], LAST,
    ),
    Case(
        "concatenation-with-the-input",
        net(
            "g (float[N,3,6,6] x) => (float[N,4,6,6] y) { h = Conv<pads=[1,1,1,1]>(x, a) s = Concat<axis=1>(h, x)"
            " y = Conv(s, c) }",
            a=A, c=normal(4, 11, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "depthwise",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<group=8>(h, d, db) y = Conv(k, c) }}",
            a=A, d=normal(8, 1, 3, 3), db=normal(8), c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "depthwise-that-makes-two-of-each",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<group=8>(h, d) y = Conv(k, c) }}",
            a=A, d=normal(16, 1, 3, 3), c=normal(4, 16, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "grouped-by-groups",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Conv<group=4>(h, d) y = Conv(k, c) }}",
            a=A, d=normal(12, 2, 3, 3), c=normal(4, 12, 1, 1),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "transposed-conv",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = ConvTranspose(h, d, db) y = Conv(k, c) }}",
            a=A, d=normal(8, 6, 2, 2), db=normal(6), c=normal(4, 6, 1, 1),
        ),
        [("a", "d", 8), ("d", "c", 6)], LAST,
    ),
    Case(
        "flatten",
        net(
            "g (float[N,3,6,6] x) => (float[N,4] y) { h = Conv(x, a) f = Flatten(h) y = Gemm<transB=1>(f, c) }",
            a=A, c=normal(4, 8 * 16),
        ),
        PLAIN, LAST,
    ),
    Case(
        "reshape-by-size-and-pooling",
        net(
            "g (float[N,3,6,6] x) => (float[N,4] y) { h = Conv(x, a) p = GlobalAveragePool(h) s = Shape(h)"
            " z = Constant<value = int64[1] {0}>() n = Gather(s, z) w = Constant<value = int64[1] {8}>()"
            " t = Concat<axis=0>(n, w) f = Reshape(p, t) y = Gemm<transB=1>(f, c) }",
            a=A, c=normal(4, 8),
        ),
        PLAIN, LAST,
    ),
    Case(
        "split-into-halves",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k, l = Split<axis=1>(h, sizes) r = Relu(k)"
            " s = Concat<axis=1>(l, r) y = Conv(s, c) }",
            a=A, c=C, sizes=integers(3, 5),
        ),
        PLAIN, LAST,
    ),
    Case(
        "split-by-attribute",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k, l = Split<axis=1>(h) r = Relu(k)"
            " s = Concat<axis=1>(l, r) y = Conv(s, c) }",
            opset=11, a=A, c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "sliced",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Slice(h, from, to, axes) y = Conv(k, c) }}",
            a=A, c=normal(4, 5, 1, 1), **{"from": integers(2), "to": integers(7), "axes": integers(1)},
        ),
        # What nobody reads stays as well: nothing tells what it is for.
        [("a", "c", 5)], LAST,
    ),
    Case(
        "shuffled-channels",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Reshape(h, four) t = Transpose<perm=[0,2,1,3,4]>(q)"
            " k = Reshape(t, back) y = Conv(k, c) }",
            a=A, c=C, four=integers(0, 2, 4, 4, 4), back=integers(0, 8, 4, 4),
        ),
        [("a", "c", 2)], LAST,
    ),
    Case(
        "group-norm-as-exported",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) s = Shape(h) q = Reshape(h, groups)"
            " n = InstanceNormalization(q, one, zero) r = Reshape(n, s) m = Mul(r, scale) y = Conv(m, c) }",
            a=A, c=C, groups=integers(0, 4, -1), one=np.ones(4, np.float32), zero=np.zeros(4, np.float32),
            scale=normal(8, 1, 1),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "group-norm",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) n = GroupNormalization<num_groups=4>(h, s, t) r = Relu(n)"
            " y = Conv(r, c) }",
            opset=21, a=A, c=C, s=normal(8), t=normal(8, seed=7),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "channels-into-space",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = DepthToSpace<blocksize=2>(h) y = Conv(k, c) }}",
            a=normal(16, 3, 3, 3), c=normal(4, 4, 1, 1),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "channels-into-space-side-by-side",
        net(
            f'g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = DepthToSpace<blocksize=2, mode="CRD">(h)'
            " y = Conv(k, c) }",
            a=normal(16, 3, 3, 3), c=normal(4, 4, 1, 1),
        ),
        [("a", "c", 4)], LAST,
    ),
    Case(
        "space-into-channels",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = SpaceToDepth<blocksize=2>(h) y = Conv(k, c) }}",
            a=A, c=normal(4, 32, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "squeeze-and-excitation",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) p = GlobalAveragePool(h) q = Conv(p, d, db) r = Relu(q)"
            " e = Conv(r, f) w = Sigmoid(e) m = Mul(h, w) y = Conv(m, c) }",
            a=A, d=normal(6, 8, 1, 1), db=normal(6), f=normal(8, 6, 1, 1), c=C,
        ),
        [("a f", "d c", 8), ("d", "f", 6)], LAST,
    ),
    Case(
        "upsampled",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Resize(h, , by) q = Pad(k, pads) y = Conv(q, c) }}",
            a=A, c=C, by=np.array([1, 1, 2, 2], np.float32), pads=integers(0, 0, 1, 1, 0, 0, 1, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "upsampled-before-opset-10",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) k = Upsample(h, by) y = Conv(k, c) }}",
            opset=9, a=A, c=C, by=np.array([1, 1, 2, 2], np.float32),
        ),
        PLAIN, LAST,
    ),
    Case(
        "padded-as-exported",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a)"
            " none = Constant<value = int64[1] {4}>() zeros = ConstantOfShape<value = int64[1] {0}>(none)"
            " all = Concat<axis=0>(given, zeros)"
            " pairs = Reshape(all, two) back = Slice(pairs, last, first, axis, step) t = Transpose<perm=[1,0]>(back)"
            " flat = Reshape(t, open) pads = Cast<to=7>(flat) q = Pad(h, pads) y = Conv(q, c) }",
            a=A, c=C, given=integers(1, 2, 1, 2), two=integers(-1, 2), last=integers(-1),
            first=integers(-np.iinfo(np.int64).max), axis=integers(0), step=integers(-1), open=integers(-1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "padded-along-other-axes-by-name",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Pad(h, pads, , axes) y = Conv(q, c) }}",
            opset=18, a=A, c=C, pads=integers(1, 2), axes=integers(-1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "padded-by-attribute",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Pad<pads=[0,0,1,1,0,0,1,1]>(h) y = Conv(q, c) }}",
            opset=10, a=A, c=C,
        ),
        PLAIN, LAST,
    ),
    Case(
        "one-dimensional",
        net(
            "g (float[N,3,9] x) => (float[N,4,W] y) { h = Conv(x, a) r = LeakyRelu(h) y = Conv(r, c) }",
            a=normal(8, 3, 3), c=normal(4, 8, 1),
        ),
        PLAIN, LAST,
    ),
    Case(
        "perceptron-with-bias",
        net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) b = Add(bias, h) r = Gelu(b) y = MatMul(r, p) }",
            opset=20, m=M, p=P, bias=normal(8),
        ),
        [("m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "weights-transposed-in-the-graph",
        net(
            "g (float[N,6] x) => (float[N,4] y) { t = Transpose<perm=[1,0]>(m) h = MatMul(x, t) r = Tanh(h)"
            " y = MatMul(r, p) }",
            m=M.T.copy(), p=P,
        ),
        [("m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "weights-from-the-left",
        net("g (float[6,5] x) => (float[4,5] y) { h = MatMul(m, x) r = Relu(h) y = MatMul(p, r) }",
             m=M.T.copy(), p=P.T.copy()),
        [("m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "gated",
        net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) k = MatMul(x, d) s = Sigmoid(k) r = Mul(h, s)"
            " y = MatMul(r, p) }",
            m=M, d=normal(6, 8, seed=6), p=P,
        ),
        [("m d", "p", 8)], {"p": RESULT},
    ),
    Case(
        "one-weight-read-twice",
        net(
            "g (float[N,6] x, float[N,6] z) => (float[N,4] y) { h = MatMul(x, m) k = MatMul(z, m) s = Sub(h, k)"
            " y = MatMul(s, p) }",
            m=M, p=P,
        ),
        [("m m", "p", 8)], {"p": RESULT},
    ),
    Case(
        "embedding",
        net(
            "g (int64[N,5] x) => (float[N,5,4] y) { h = Gather(table, x) r = Relu(h) y = MatMul(r, p) }",
            table=normal(20, 8), p=P,
        ),
        [("table", "p", 8)], {"p": RESULT},
    ),
    Case(
        "attention-heads",
        net(
            "g (float[N,5,6] x) => (float[N,5,4] y) {"
            " q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
            " qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split)"
            " qt = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(ks) vt = Transpose<perm=[0,2,1,3]>(vs)"
            " s = MatMul(qt, kt) w = Softmax(s) o = MatMul(w, vt) t = Transpose<perm=[0,2,1,3]>(o)"
            " m = Reshape(t, join) y = MatMul(m, p) }",
            wq=M, wk=normal(6, 8, seed=6), wv=normal(6, 8, seed=7), p=P, split=integers(0, 0, 4, 2),
            join=integers(0, 0, 8),
        ),
        [("wq wk wv", "p", 4)], {"p": RESULT},
    ),
    Case(
        "a-head-that-nobody-reads",
        net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { h = MatMul(x, m) s = Reshape(h, split)"
            " k = Slice(s, first, last, axis) j = Reshape(k, join) y = MatMul(j, p) }",
            m=M, p=normal(6, 4), split=integers(0, 0, 4, 2), first=integers(0), last=integers(3),
            axis=integers(2), join=integers(0, 0, 6),
        ),
        [("m", "p", 3)], {"p": RESULT},
    ),
    Case(
        "attention-heads-packed",
        net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { h = MatMul(x, m) s = Reshape(h, split)"
            " t = Transpose<perm=[2,0,3,1,4]>(s) q = Gather<axis=0>(t, first) k = Gather<axis=0>(t, second)"
            " v = Gather<axis=0>(t, third) kt = Transpose<perm=[0,1,3,2]>(k) a = MatMul(q, kt) w = Softmax(a)"
            " o = MatMul(w, v) b = Transpose<perm=[0,2,1,3]>(o) j = Reshape(b, join) y = MatMul(j, p) }",
            m=normal(6, 24), p=P, split=integers(0, 0, 3, 4, 2), join=integers(0, 0, -1),
            first=np.array(0), second=np.array(1), third=np.array(2),
        ),
        [("m", "p", 4)], {"p": RESULT},
    ),
    Case(
        "attention-in-one-node",
        net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { h = MatMul(x, m) s = Reshape(h, split)"
            " t = Transpose<perm=[2,0,3,1,4]>(s) q = Gather<axis=0>(t, first) k = Gather<axis=0>(t, second)"
            " v = Gather<axis=0>(t, third) o = Attention(q, k, v) b = Transpose<perm=[0,2,1,3]>(o)"
            " j = Reshape(b, join) y = MatMul(j, p) }",
            opset=23, m=normal(6, 24), p=P, split=integers(0, 0, 3, 4, 2), join=integers(0, 0, -1),
            first=np.array(0), second=np.array(1), third=np.array(2),
        ),
        [("m", "p", 4)], {"p": RESULT},
    ),
    Case(
        "attention-in-one-node-of-heads-side-by-side",
        net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
            " o = Attention<q_num_heads=8, kv_num_heads=4>(q, k, v, mask) y = MatMul(o, p) }",
            opset=23, wq=normal(6, 16), wk=normal(6, 8, seed=6), wv=normal(6, 12, seed=7), p=normal(24, 4),
            mask=normal(1, 8, 5, 5),
        ),
        # Two heads of queries share one of keys, and go with it.
        [("wq wk wv", "p", 4)], {"p": RESULT},
    ),
    Case(
        "attention-in-one-node-of-one-head",
        net(
            "g (float[N,5,6] x) => (float[N,5,4] y) { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
            " q1 = Unsqueeze(q, at) k1 = Unsqueeze(k, at) v1 = Unsqueeze(v, at) o = Attention(q1, k1, v1)"
            " j = Squeeze(o, at) y = MatMul(j, p) }",
            opset=23, wq=M, wk=normal(6, 8, seed=6), wv=normal(6, 8, seed=7), p=P, at=integers(1),
        ),
        [("wv", "p", 8)], {"wq": NO_WEIGHT, "wk": NO_WEIGHT, "p": RESULT},
    ),
    Case(
        "one-head",
        networks.attention_block(),
        [("value.weight", "out.weight", 16)],
        {"embedding": MIXED, "query.weight": NO_WEIGHT, "key.weight": NO_WEIGHT, "out.weight": MIXED},
    ),
    Case(
        "bias-that-another-product-makes",
        net(
            "g (float[N,6] x) => (float[N,4] y) { k = MatMul(x, d) r = Tanh(k) h = Gemm(x, m, r) y = MatMul(h, p) }",
            m=M, d=normal(6, 8, seed=6), p=P,
        ),
        [("d m", "p", 8)], {"p": RESULT},
    ),
]  # fmt: skip
